"""A stand-in for the engine that misbehaves on request: slow, dead, failing half-way, refusing.

The tokenizer and its incremental text are the real ones; only the model is not. It says the prompt
again, token by token, and then the end-of-sequence token. What needs no misbehaviour is tested with
the real engine, in tests/e2e.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors

from inarch.engine.messages import CacheTree, HeadInfo, ModelInfo, OpChoice, Stats, TreeNode
from inarch.engine.outputs import RequestOutput, TokenLogprob
from inarch.engine.text.chat_template import ChatTemplate
from inarch.engine.text.tokenizer import Tokenizer
from inarch.errors import EngineDeadError, InarchError
from inarch.formats import Formats
from inarch.sampling import DEFAULT_TERMS, SamplingParams, Terms

CONTEXT = 2048
GENERATES = HeadInfo(
    generates=True,
    outputs=8,
    each_token=False,
    normalized=True,
    labels=(),
    scores="raw",
    tells_texts_apart=False,
    whole_prompts=False,
)
EOS = 256
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def byte_tokenizer(template: str | None = TEMPLATE, *, begins: bool = False) -> Tokenizer:
    """Token id = byte; 256 ends an answer, and `begins` a text too."""
    backend = Backend(models.BPE({char: byte for byte, char in enumerate(_spellings())}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["</s>"])
    if begins:
        backend.post_processor = processors.TemplateProcessing(
            single="</s> $A", special_tokens=[("</s>", EOS)]
        )
    return Tokenizer(
        backend,
        special_tokens={"eos_token": "</s>"},
        eos_token_ids=[EOS],
        chat_template=ChatTemplate({"default": template} if template else {}, {}),
    )


def _spellings() -> list[str]:
    """The character that stands for each byte: itself if it is printable, else one from 256 on."""
    others = iter(sorted(c for c in pre_tokenizers.ByteLevel.alphabet() if ord(c) > 255))
    printable = set(pre_tokenizers.ByteLevel.alphabet())
    return [chr(byte) if chr(byte) in printable else next(others) for byte in range(256)]


class StandIn:
    """Faults are attributes, to be set while it runs."""

    def __init__(
        self,
        *,
        name: str = "standin",
        context: int = CONTEXT,
        template: str | None = TEMPLATE,
        default_sampling: dict[str, Any] | None = None,
        head: HeadInfo | None = None,
        weights: str = "",
    ) -> None:
        self.tokenizer = byte_tokenizer(template)
        self.info = ModelInfo(
            name=name,
            path="/nowhere",
            architecture="none",
            context_length=context,
            max_request_tokens=context,
            vocab_size=257,
            dtype="float32",
            weights=weights,
            backend="none",
            device="none",
            kv_tokens=4 * context,
            kv_dtype="float8_e4m3fn",
            page_tokens=16,
            max_running_requests=64,
            head=head or GENERATES,
            eos_token_ids=(EOS,),
            default_sampling=default_sampling or {},
            memory={},
            reference_ops=("rms_norm",),
            ops=(OpChoice("rms_norm", "reference", 9, "no kernel applies"),),
        )
        self.formats = Formats()
        self.alive = True
        self.delay_s = 0.0  # before every token
        self.fail_after: int | None = None  # tokens, then an error that ends the answer
        self.die_after: int | None = None  # tokens, then the process is gone
        self.crash: Exception | None = None  # what generate raises at once
        self.endless = False  # answers never end by themselves
        self.says: str | None = None  # instead of the prompt
        self.cached = 0  # tokens of every prompt
        self.running = self.generated = 0
        self.aborted = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.terms: list[Terms] = []
        self.orders: list[tuple[Any, ...]] = []
        self.paused = False
        self.asked: list[tuple[list[int], SamplingParams]] = []

    # ---- orders, which are only noted ----

    async def clear_cache(self) -> int:
        self.orders.append(("clear_cache",))
        return 3

    def abort_everywhere(self, request_id: str | None) -> None:
        self.orders.append(("abort", request_id))

    async def pause(self, mode: str) -> None:
        self.orders.append(("pause", mode))

    async def proceed(self) -> None:
        self.orders.append(("proceed",))

    async def start_profile(self, path: str, steps: int | None = None) -> None:
        self.orders.append(("start_profile", path, steps))

    async def stop_profile(self) -> None:
        self.orders.append(("stop_profile",))

    async def __aenter__(self) -> StandIn:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.alive = False

    async def stats(self) -> Stats:
        if not self.alive:
            raise EngineDeadError("the engine process has ended")
        return Stats(
            ticket=0,
            running=self.running,
            waiting=0,
            kv_pages_total=64,
            kv_pages_used=3,
            kv_pages_cached=2,
            page_tokens=16,
            retractions=0,
            steps=self.generated,
            prompt_tokens=sum(len(prompt) for prompt, _ in self.asked),
            cached_tokens=0,
            generated_tokens=self.generated,
            paused=self.paused,
        )

    async def cache_tree(self, nodes: int) -> CacheTree:
        """A branch of prompts that begin alike, and one of a tenant whose text is its own."""
        if not self.alive:
            raise EngineDeadError("the engine process has ended")
        head = np.array(list(b"<b>Hello</b>"), dtype="<i4").tobytes()
        tree = [TreeNode(7, 0, 32, 1, 5, 0, head), TreeNode(9, 7, 16, 0, 4, 3, head[:20]),
                TreeNode(4, 0, 16, 0, 2, 0, b"")]  # fmt: skip
        return CacheTree(ticket=0, nodes=tree[:nodes], tokens=112)

    def begin(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        listener: Callable[[RequestOutput | InarchError], None],
        *,
        request_id: str,
        terms: Terms = DEFAULT_TERMS,
    ) -> str:
        self.terms.append(terms)
        self._tasks[request_id] = asyncio.create_task(
            self._tell(listener, self.generate(ids, params, request_id=request_id))
        )
        return request_id

    def end(self, request_id: str) -> None:
        self._tasks.pop(request_id).cancel()

    async def _tell(self, listener: Any, outputs: AsyncGenerator[RequestOutput, None]) -> None:
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    listener(output)
        except Exception as error:
            listener(error)

    async def generate(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        request_id: str | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        self.asked.append((list(prompt), params))
        self._check(params)
        self.running += 1
        finished = False
        try:
            samples = [
                self._sample(i, list(prompt), params, request_id or "") for i in range(params.n)
            ]
            while samples:
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                for sample in list(samples):
                    output = next(sample)
                    self.generated += not params.encode
                    if output.finish_reason is not None:
                        samples.remove(sample)
                    yield output
                await asyncio.sleep(0)
            finished = True
        finally:
            self.running -= 1
            self.aborted += not finished

    def _check(self, params: SamplingParams) -> None:
        params.check(self.info.vocab_size)
        if not self.alive:
            raise EngineDeadError("the engine process has ended")
        if self.crash is not None:
            raise self.crash

    def _vectors(self, prompt: list[int]) -> np.ndarray:
        """Something that tells prompts apart."""
        head = self.info.head
        found = np.array([[sum(prompt) % (i + 2) + 1 for i in range(head.outputs)]], np.float32)
        return found / np.linalg.norm(found) if head.normalized else found

    def _sample(self, index: int, prompt: list[int], params: SamplingParams, request_id: str):
        text = self.tokenizer.detokenizer(
            prompt,
            stop=params.stop,
            stop_regex=params.stop_regex,
            include_stop=params.include_stop,
            skip_special_tokens=params.skip_special_tokens,
        )
        room = self.info.context_length - len(prompt)
        most = min(params.max_tokens or room, room)
        about: tuple[TokenLogprob, ...] = ()
        if params.prompt_logprobs is not None:
            about = tuple(_logprob(t, params) for t in prompt[max(params.logprob_start, 1) :])
        if params.max_tokens == 0:
            vectors = self._vectors(prompt) if params.encode else None
            reason = "stop" if params.encode else "length"
            yield RequestOutput(
                request_id, index, "", (), (), reason, None, len(prompt), 0, 0, None, about, vectors
            )
            return
        for count in itertools.count(1):
            self._maybe_die(count)
            if self.fail_after is not None and count > self.fail_after:
                raise InarchError("the device is on fire")
            token = self._token(prompt, count, params)
            ends = token == EOS and not params.ignore_eos  # not part of the text
            piece, reason, matched = "" if ends else text.push([token]), None, None
            if ends:
                reason, matched = "stop", EOS
            elif text.matched is not None:
                reason, matched = "stop", text.matched
            elif count == most:
                reason = "length"
            logprob = _logprob(token, params)
            yield RequestOutput(
                request_id=request_id,
                index=index,
                text=piece + (text.finish() if reason and text.matched is None else ""),
                token_ids=(token,),
                logprobs=(logprob,) if params.logprobs is not None else (),
                finish_reason=reason,
                matched_stop=matched,
                prompt_tokens=len(prompt),
                completion_tokens=count,
                cached_tokens=self.cached if index == 0 else len(prompt),
                prompt_logprobs=about if count == 1 else (),
            )

    def _token(self, prompt: list[int], count: int, params: SamplingParams) -> int:
        said = prompt if self.says is None else list(self.says.encode())
        if self.endless or params.ignore_eos:
            return said[(count - 1) % len(said)]
        return [*said, EOS][count - 1] if count <= len(said) + 1 else EOS

    def _maybe_die(self, count: int) -> None:
        if self.die_after is not None and count > self.die_after:
            self.alive = False
            raise EngineDeadError("the engine process has ended")


def _logprob(token: int, params: SamplingParams) -> TokenLogprob:
    """The same for every token; a named one's is minus its id."""
    named = tuple(-float(one) for one in params.logprob_token_ids)
    return TokenLogprob(token, -0.5, ((token, -0.5), (10, float("-inf"))), named)
