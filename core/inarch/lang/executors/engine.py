"""Runs programs on an engine of our own, in a process beside this one.

Prompts are tokens here, not text: what a state has said is tokenized once, what the model wrote stays
the tokens that it wrote, and so all of it is found again in the engine's prefix cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from inarch.config import EngineConfig
from inarch.engine.async_engine import AsyncEngine
from inarch.engine.outputs import RequestOutput, TokenLogprob
from inarch.errors import InarchError, InvalidRequestError
from inarch.lang.choices import Scored
from inarch.lang.executors.executor import Piece
from inarch.lang.loop import submit
from inarch.lang.transcript import Encoded, Transcript
from inarch.sampling import SamplingParams

MARK = "\x00inarch\x00"  # stands for a message's content, to learn what a template puts around it


class Runtime:
    """Starts an engine: `with Runtime("MODEL") as runtime: set_default_backend(runtime)`.

    model_path: as `inarch serve` takes it; None: the bundled model. options: fields of
    EngineConfig. Raises InarchError if the engine cannot be started.
    """

    def __init__(self, model_path: str | None = None, **options: Any) -> None:
        self._engine = AsyncEngine(EngineConfig(model=model_path, **options))
        submit(self._engine.__aenter__()).result()

    def shutdown(self) -> None:
        submit(self._engine.__aexit__(None, None, None)).result()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def flush_cache(self) -> None:
        """Forget all cached prefixes."""
        submit(self._engine.clear_cache()).result()

    def defaults(self) -> Mapping[str, Any]:
        return self._engine.info.default_sampling

    async def generate(
        self, transcript: Transcript, params: SamplingParams
    ) -> AsyncIterator[Piece]:
        known = self._encode(transcript)
        ids: list[int] = []
        text, logprobs = "", dict[int, list[TokenLogprob]]()
        async for output in self._engine.generate(known.ids, params):
            logprobs.setdefault(output.index, []).extend(output.logprobs)
            if output.index == 0:
                ids += output.token_ids
                text += output.text
                if output.finish_reason is not None:
                    transcript.encoded = self._extended(known, ids, text, output)
            over = output.finish_reason is not None
            meta = self._meta(output, logprobs[output.index]) if over else None
            yield Piece(output.text, output.index, meta)

    async def prepare(self, transcript: Transcript) -> None:
        await self._compute(self._encode(transcript), transcript)

    async def score(
        self, transcript: Transcript, choices: Sequence[str], unconditional: bool
    ) -> list[Scored]:
        known = self._encode(transcript)
        if not known.ids:
            raise InvalidRequestError("select needs some text before it")
        tokens = [self._engine.tokenizer.encode(choice, False) for choice in choices]
        await self._compute(known, transcript)
        found = await asyncio.gather(*(self._logprobs(known.ids, own) for own in tokens))
        alone: Sequence[Sequence[float]] = [()] * len(choices)
        if unconditional:
            start = self._start_of_text(known.ids)
            alone = await asyncio.gather(*(self._logprobs(start, own) for own in tokens))
        parts = zip(choices, tokens, found, alone, strict=True)
        return [Scored(*part) for part in parts]

    async def _compute(self, known: Encoded, transcript: Transcript) -> None:
        """What does not fill a page is left to whoever comes: only whole pages are shared."""
        if len(known.ids) - known.computed >= self._engine.info.page_tokens:
            await self._prompt(known.ids, SamplingParams(max_tokens=0))
            transcript.encoded = replace(known, computed=len(known.ids))

    async def _logprobs(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """Of each token behind the prompt and the tokens before it."""
        asked = SamplingParams(max_tokens=0, prompt_logprobs=0, logprob_start=len(prompt))
        output = await self._prompt((*prompt, *tokens), asked)
        return [entry.logprob for entry in output.prompt_logprobs]

    async def _prompt(self, ids: Sequence[int], params: SamplingParams) -> RequestOutput:
        """Compute a prompt and generate nothing."""
        async for output in self._engine.generate(ids, params):
            return output
        raise InarchError("the engine gave no answer")

    def _start_of_text(self, ids: Sequence[int]) -> Sequence[int]:
        """What comes before a text that has nothing before it."""
        tokenizer = self._engine.tokenizer
        bos = tokenizer.bos_token_id
        return [bos] if bos is not None else list(tokenizer.eos_token_ids[:1]) or ids[:1]

    def _encode(self, transcript: Transcript) -> Encoded:
        """All of the transcript in tokens; what was known of it stays as it was."""
        text, known = self._text(transcript), transcript.encoded
        if known.text and text.startswith(known.text):
            more = self._engine.tokenizer.encode(text[len(known.text) :], False)
            transcript.encoded = Encoded(text, (*known.ids, *more), known.computed)
        else:
            ids = tuple(self._engine.tokenizer.encode(text, not transcript.chat))
            transcript.encoded = Encoded(text, ids)
        return transcript.encoded

    def _text(self, transcript: Transcript) -> str:
        if not transcript.chat:
            return transcript.content
        render = self._engine.tokenizer.apply_chat_template
        messages = [message.as_dict() for message in transcript.messages]
        match transcript.role:
            case None:
                return render(messages, add_generation_prompt=False)
            case "assistant":
                return render(messages, add_generation_prompt=True) + transcript.content
            case role:
                opened = [*messages, {"role": role, "content": MARK}]
                before, _, _ = render(opened, add_generation_prompt=False).partition(MARK)
                return before + transcript.content

    def _extended(
        self, known: Encoded, ids: Sequence[int], text: str, last: RequestOutput
    ) -> Encoded:
        """With the answer's own tokens, if they spell its text: a stop string may have cut it."""
        kept = ids[:-1] if isinstance(last.matched_stop, int) else ids
        if self._engine.tokenizer.decode(kept) != text:
            return replace(known, computed=len(known.ids))
        whole = (*known.ids, *kept)
        return Encoded(known.text + text, whole, len(whole))

    def _meta(self, last: RequestOutput, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        def entry(token: int, logprob: float) -> tuple[float, int, str]:
            return (logprob, token, self._engine.tokenizer.token_text(token))

        meta: dict[str, Any] = {
            "id": last.request_id,
            "finish_reason": {"type": last.finish_reason, "matched": last.matched_stop},
            "prompt_tokens": last.prompt_tokens,
            "completion_tokens": last.completion_tokens,
            "cached_tokens": last.cached_tokens,
        }
        if logprobs:
            meta["output_token_logprobs"] = [entry(e.token_id, e.logprob) for e in logprobs]
            meta["output_top_logprobs"] = [[entry(*top) for top in e.top] for e in logprobs]
        return meta
