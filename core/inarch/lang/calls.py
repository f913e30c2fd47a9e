"""What a track asks of its executor, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec
import numpy as np

from inarch.errors import InarchError, InvalidRequestError
from inarch.lang.ahead import before_message, keep_ahead, tries_of, written_ahead
from inarch.lang.events import Call, Event, Variable
from inarch.lang.executors.executor import Executor, Piece, Wanted
from inarch.lang.expressions import Gen, Select
from inarch.lang.tools import ROUNDS, CallMade
from inarch.lang.transcript import Transcript
from inarch.sampling import SamplingParams


@dataclass
class Sample:
    """One answer, from its pieces."""

    text: str = ""
    reasoning: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    calls: tuple[CallMade, ...] = ()

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.reasoning += piece.reasoning
        self.meta = dict(piece.meta or {})
        self.calls += piece.calls


class Calls:
    """Of one state. tell: of text as it comes; log: of calls that are over."""

    def __init__(
        self,
        executor: Executor,
        transcript: Transcript,
        tell: Callable[[Event], None],
        log: list[Call],
    ) -> None:
        self._executor, self._transcript = executor, transcript
        self._tell, self._log = tell, log

    async def generate(
        self, gen: Gen, params: SamplingParams, ahead: int | None = None
    ) -> dict[str, Variable]:
        """The variables that the model wrote; the transcript has grown by the first sample.

        ahead: tokens that may be asked for at once, for the gens behind this one too.
        """
        if ahead is not None and (found := await self._look_ahead(gen, params, ahead)) is not None:
            self._hear(gen, Piece(found.text, meta=found.meta))
            self._transcript.add(found.text)
            return _variables(gen, [found], {})
        if gen.tools:
            _check_tools(params, self._transcript)
        required = gen.tool_choice == "required"
        wanted = Wanted(params, gen.reasoning, gen.tools, required, gen.lora)
        samples = await self._answer(gen, wanted)
        told: list[dict[str, Any]] = []
        for _ in range(ROUNDS):
            if not samples[0].calls:
                break
            told += await self._run(gen, samples[0])
            samples = await self._answer(gen, replace(wanted, required=False))
        else:
            raise InarchError(f"the model called tools {ROUNDS} times and gave no answer")
        self._transcript.add(samples[0].text)
        return _variables(gen, samples, {"tool_calls": told} if gen.tools else {})

    async def _look_ahead(self, gen: Gen, params: SamplingParams, tokens: int) -> Sample | None:
        """From what the API has written already, or is asked for now; None: not so far, or it
        says other things than the program."""
        transcript = self._transcript
        asked = msgspec.structs.replace(params, stop=(), max_tokens=tokens)
        found = written_ahead(transcript, asked, params.stop)
        for _ in range(0 if found is not None else tries_of(asked)):
            begun_s = time.monotonic()
            answer = Sample()
            async with aclosing(
                self._executor.generate(before_message(transcript), Wanted(asked))
            ) as pieces:
                async for piece in pieces:
                    answer.add(piece)
            self._called(gen.name, "gen", begun_s, [answer.meta])
            found = keep_ahead(transcript, asked, params.stop, answer.text, answer.meta)
            if found is not None:
                break
        return None if found is None else Sample(found[0], meta=found[1])

    async def _answer(self, gen: Gen, wanted: Wanted) -> list[Sample]:
        params, transcript = wanted.params, self._transcript
        peeks = params.max_tokens == 0 and params.logprobs is not None
        if peeks:  # what would come next, while nothing does
            transcript = transcript.copy()
            wanted = replace(wanted, params=msgspec.structs.replace(params, max_tokens=1))
        begun_s = time.monotonic()
        samples = [Sample() for _ in range(params.n)]
        async with aclosing(self._executor.generate(transcript, wanted)) as pieces:
            async for piece in pieces:
                heard = replace(piece, text="", reasoning="") if peeks else piece
                samples[piece.sample].add(heard)
                if piece.sample == 0:
                    self._hear(gen, heard)
        self._called(gen.name, "gen", begun_s, [sample.meta for sample in samples])
        for sample in samples:
            sample.meta.setdefault("e2e_latency", time.monotonic() - begun_s)
        return samples

    def _hear(self, gen: Gen, piece: Piece) -> None:
        if piece.reasoning and gen.name is not None:
            self._tell(Event(piece.reasoning, gen.reasoning_name, aside=True))
        self._tell(Event(piece.text, gen.name, piece.meta))

    async def _run(self, gen: Gen, sample: Sample) -> list[dict[str, Any]]:
        """Run all calls of an answer side by side, and put their results into the transcript."""
        tools = {tool.name: tool for tool in gen.tools}
        results = await asyncio.gather(*(tools[call.name].run(call) for call in sample.calls))
        self._transcript.add(sample.text)
        self._transcript.call(sample.calls, results)
        return [
            {**msgspec.to_builtins(call), "result": result}
            for call, result in zip(sample.calls, results, strict=True)
        ]

    async def select(self, select: Select) -> dict[str, Variable]:
        """The chosen text, with which the transcript has grown, and how likely each choice was."""
        method, begun_s = select.method, time.monotonic()
        scored = await self._executor.score(
            self._transcript, select.choices, method.needs_unconditional
        )
        self._called(select.name, "select", begun_s)
        decision = method(scored)
        chosen = scored[decision.index].text
        self._transcript.add(chosen)
        self._tell(Event(chosen, select.name, {}))
        logprobs = [
            list(zip(choice.logprobs, choice.tokens, choice.token_texts, strict=True))
            for choice in scored
        ]
        meta = {
            "normalized_prompt_logprobs": [float(np.mean(choice.logprobs)) for choice in scored],
            "input_token_logprobs": logprobs,
            **decision.meta,
        }
        return {select.name or "": Variable(chosen, meta)}

    async def branch(self) -> None:
        """Others go on from here."""
        begun_s = time.monotonic()
        await self._executor.prepare(self._transcript)
        self._called("", "fork", begun_s)

    def _called(
        self,
        name: str | None,
        kind: Literal["gen", "select", "fork"],
        begun_s: float,
        samples: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        first = samples[0] if samples else {}
        written = sum(sample.get("completion_tokens") or 0 for sample in samples)
        prompt, cached = (first.get(f"{part}_tokens") or 0 for part in ("prompt", "cached"))
        self._log.append(Call(name or "", kind, begun_s, time.monotonic(), prompt, cached, written))


def _check_tools(params: SamplingParams, transcript: Transcript) -> None:
    if params.n > 1:
        raise InvalidRequestError("gen with tools draws one sample, not several", param="n")
    if transcript.role != "assistant":
        raise InvalidRequestError(
            "tools are called in a message of the assistant: assistant(gen(tools=[...]))",
            param="tools",
        )


def _variables(gen: Gen, samples: Sequence[Sample], more: Mapping[str, Any]) -> dict[str, Variable]:
    """Of one sample its value, of several a list."""
    found = [_read(sample.text, gen.model) for sample in samples]
    reasoning = [sample.reasoning for sample in samples]
    if len(samples) > 1:
        meta: Mapping[str, Any] = {"samples": [sample.meta for sample in samples]}
        return {
            gen.name or "": Variable(found, meta),
            gen.reasoning_name: Variable(reasoning, meta),
        }
    meta = {**samples[0].meta, **more}
    return {
        gen.name or "": Variable(found[0], meta),
        gen.reasoning_name: Variable(reasoning[0], meta),
    }


def _read(text: str, model: type[Any] | None) -> Any:
    """As an object of the pydantic class, if one was given."""
    if model is None:
        return text
    read: Callable[[str], Any] = model.model_validate_json
    try:
        return read(text)
    except ValueError as error:
        raise InarchError(
            f"the answer is no {model.__name__}: {' '.join(str(error).split())}; it may have been"
            " cut off: raise max_tokens"
        ) from None
