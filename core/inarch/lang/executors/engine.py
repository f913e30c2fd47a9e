"""Runs programs on an engine of our own: one in a process beside this one, or any that is given.

Prompts are tokens here, not text: what a state has said is tokenized once, what the model wrote stays
the tokens that it wrote, and so all of it is found again in the engine's prefix cache.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from inarch.config import EngineConfig
from inarch.engine.async_engine import AsyncEngine
from inarch.engine.messages import ModelInfo
from inarch.engine.outputs import RequestOutput, TokenLogprob
from inarch.engine.text.tokenizer import Tokenizer
from inarch.engine.text.tool_prompt import with_tools
from inarch.errors import ConfigError, InarchError, InvalidRequestError
from inarch.formats import Formats
from inarch.lang.choices import Scored
from inarch.lang.executors.executor import Piece, Wanted
from inarch.lang.executors.reading import Reader, formats_for
from inarch.lang.loop import submit
from inarch.lang.tools import Tool
from inarch.lang.transcript import Encoded, Transcript
from inarch.parsing import Choice
from inarch.sampling import SamplingParams

NO_PICTURES = (
    "the models that run here read no pictures yet; OpenAI(...) and Anthropic(...) are given them"
)
MARK = "\x00inarch\x00"  # stands for a message's content, to learn what a template puts around it


class TokenEngine(Protocol):
    """What an AsyncEngine is, to those who run programs on it."""

    tokenizer: Tokenizer
    formats: Formats
    info: ModelInfo

    def generate(
        self, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[RequestOutput, None]: ...


class TokenExecutor:
    """Runs programs on an engine that takes tokens."""

    no_pictures = NO_PICTURES
    writes_ahead = False

    def __init__(self, engine: TokenEngine) -> None:
        self._engine = engine

    def defaults(self) -> Mapping[str, Any]:
        return self._engine.info.default_sampling

    async def generate(self, transcript: Transcript, wanted: Wanted) -> AsyncGenerator[Piece, None]:
        formats = formats_for(wanted, self._engine.formats)
        known = self._encode(transcript, wanted.tools)
        params = self._held(wanted, formats)
        readers = [Reader(formats, wanted, known.text) for _ in range(params.n)]
        said = [Said() for _ in range(params.n)]
        async for output in self._engine.generate(known.ids, params):
            one, over = said[output.index], output.finish_reason is not None
            one.add(output)
            if output.index == 0 and over:
                transcript.encoded = self._extended(known, one.token_ids, one.text, output)
            meta = self.meta(output, one, known.ids, params) if over else None
            yield readers[output.index].read(Piece(output.text, output.index, meta))

    def _held(self, wanted: Wanted, formats: Formats) -> SamplingParams:
        """Markers stay in the text, and calls are held to how the model writes them."""
        described = [tool.described for tool in wanted.tools]
        params = wanted.params
        if wanted.lora is not None:
            raise InvalidRequestError(
                f"the engine has no adapters yet, so no {wanted.lora!r}: leave lora out",
                param="lora",
            )
        if formats.special(described):
            params = msgspec.structs.replace(params, skip_special_tokens=False)
        if not described:
            return params
        if formats.tools is None:
            raise InvalidRequestError("no calls are looked for: tool_call_parser is none")
        grammar = formats.tools.grammar(
            described, Choice("required" if wanted.required else "auto")
        )
        if grammar.kind not in self._engine.info.grammar_kinds and not wanted.required:
            return params  # calls are read, and arguments are as good as the model is
        return msgspec.structs.replace(params, grammar=grammar)

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
        texts = [[self._engine.tokenizer.token_text(token) for token in own] for own in tokens]
        parts = zip(choices, tokens, texts, found, alone, strict=True)
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
        async with aclosing(self._engine.generate(ids, params)) as outputs:
            async for output in outputs:
                return output
        raise InarchError("the engine gave no answer")

    def _start_of_text(self, ids: Sequence[int]) -> Sequence[int]:
        """What comes before a text that has nothing before it."""
        tokenizer = self._engine.tokenizer
        bos = tokenizer.bos_token_id
        return [bos] if bos is not None else list(tokenizer.eos_token_ids[:1]) or ids[:1]

    def _encode(self, transcript: Transcript, tools: Sequence[Tool] = ()) -> Encoded:
        """All of the transcript in tokens; what was known of it stays as it was."""
        text, known = self._text(transcript, tools), transcript.encoded
        if known.text and text.startswith(known.text):
            more = self._engine.tokenizer.encode(text[len(known.text) :], False)
            transcript.encoded = Encoded(text, (*known.ids, *more), known.computed)
        else:
            ids = tuple(self._engine.tokenizer.encode(text, not transcript.chat))
            transcript.encoded = Encoded(text, ids)
        return transcript.encoded

    def _text(self, transcript: Transcript, tools: Sequence[Tool]) -> str:
        if not transcript.chat:
            return transcript.content
        messages = [message.as_dict() for message in transcript.messages]
        match transcript.role:
            case None:
                return self._rendered(messages, tools, add_generation_prompt=False)
            case "assistant":
                before = self._rendered(messages, tools, add_generation_prompt=True)
                return before + transcript.content
            case role:
                opened = [*messages, {"role": role, "content": MARK}]
                text = self._rendered(opened, tools, add_generation_prompt=False)
                before, _, _ = text.partition(MARK)
                return before + transcript.content

    def _rendered(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Tool],
        *,
        add_generation_prompt: bool,
    ) -> str:
        tokenizer, described = self._engine.tokenizer, [tool.described for tool in tools]
        shown, given = with_tools(
            tokenizer.chat_template, self._engine.formats, messages, described, "tools"
        )
        return tokenizer.apply_chat_template(
            shown, add_generation_prompt=add_generation_prompt, tools=given
        )

    def _extended(
        self, known: Encoded, ids: Sequence[int], text: str, last: RequestOutput
    ) -> Encoded:
        """With the answer's own tokens, if they spell its text: a stop string may have cut it."""
        kept = ids[:-1] if isinstance(last.matched_stop, int) else ids
        if self._engine.tokenizer.decode(kept) != text:
            return replace(known, computed=len(known.ids))
        whole = (*known.ids, *kept)
        return Encoded(known.text + text, whole, len(whole))

    def meta(
        self, last: RequestOutput, said: Said, prompt: Sequence[int], params: SamplingParams
    ) -> dict[str, Any]:
        """In SGLang's names."""
        meta: dict[str, Any] = {
            "id": last.request_id,
            "finish_reason": {"type": last.finish_reason, "matched": last.matched_stop},
            "prompt_tokens": last.prompt_tokens,
            "completion_tokens": last.completion_tokens,
            "cached_tokens": last.cached_tokens,
        }
        if params.logprobs is not None:
            meta |= self._told("output", said.logprobs, params.logprobs)
        if params.prompt_logprobs is not None:
            meta |= self._told("input", said.of_prompt, params.prompt_logprobs)
            if params.logprob_start == 0:  # nothing is before the first token
                first = (None, prompt[0], self._engine.tokenizer.token_text(prompt[0]))
                meta["input_token_logprobs"].insert(0, first)
        return meta

    def _told(self, side: str, entries: Sequence[TokenLogprob], top: int) -> dict[str, Any]:
        def entry(token: int, logprob: float) -> tuple[float, int, str]:
            return (logprob, token, self._engine.tokenizer.token_text(token))

        found = {f"{side}_token_logprobs": [entry(e.token_id, e.logprob) for e in entries]}
        if not top:
            return found
        return {**found, f"{side}_top_logprobs": [[entry(*t) for t in e.top] for e in entries]}


class Said:
    """A sample so far."""

    def __init__(self) -> None:
        self.text = ""
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.of_prompt: Sequence[TokenLogprob] = ()

    def add(self, output: RequestOutput) -> None:
        self.text += output.text
        self.token_ids += output.token_ids
        self.logprobs += output.logprobs
        self.of_prompt = self.of_prompt or output.prompt_logprobs


class Runtime(TokenExecutor):
    """Starts an engine: `with Runtime("MODEL") as runtime: set_default_backend(runtime)`.

    model_path: as `inarch serve` takes it; None: the bundled model. options: fields of
    EngineConfig. Raises InarchError if the engine cannot be started.
    """

    def __init__(self, model_path: str | None = None, **options: Any) -> None:
        known = EngineConfig.__dataclass_fields__
        if unknown := sorted(set(options) - set(known)):
            raise ConfigError(
                f"Runtime takes no {', '.join(unknown)}; it takes the options of `inarch serve`,"
                f" such as {', '.join(list(known)[:6])}"
            )
        self._process = os.getpid()
        self.engine = AsyncEngine(EngineConfig(model=model_path, **options))
        submit(self.engine.__aenter__()).result()
        super().__init__(self.engine)

    async def generate(self, transcript: Transcript, wanted: Wanted) -> AsyncGenerator[Piece, None]:
        self.check_process()
        async for piece in super().generate(transcript, wanted):
            yield piece

    async def _prompt(self, ids: Sequence[int], params: SamplingParams) -> RequestOutput:
        self.check_process()
        return await super()._prompt(ids, params)

    def check_process(self) -> None:
        """Raise InarchError in a process that was forked from the one that started it."""
        if os.getpid() != self._process:
            raise InarchError(
                "this Runtime was started in another process: start it behind the fork, or serve the"
                " model and use RuntimeEndpoint"
            )

    def shutdown(self) -> None:
        submit(self.engine.__aexit__(None, None, None)).result()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def flush_cache(self) -> None:
        """Forget all cached prefixes."""
        submit(self.engine.clear_cache()).result()

    def get_server_info(self) -> dict[str, Any]:
        """Of the model and what it runs on."""
        info: dict[str, Any] = msgspec.to_builtins(self.engine.info)
        return info
