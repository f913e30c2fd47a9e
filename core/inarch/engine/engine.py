"""The offline engine: the same core and the same text half as the server's, in this process."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from inarch.config import EngineConfig
from inarch.engine.answers import (
    Answer,
    Conversation,
    Parts,
    Prompt,
    as_list,
    conversations,
    per_prompt,
)
from inarch.engine.encoding import Asked, Asking, Encoding, Ranked, T, paired
from inarch.engine.frontend import Frontend
from inarch.engine.messages import Abort, ModelInfo, NewRequest, Stats
from inarch.engine.outputs import RequestOutput
from inarch.engine.text.tokenizer import Tokenizer
from inarch.errors import InarchError, InvalidRequestError
from inarch.sampling import SamplingParams

if TYPE_CHECKING:
    from inarch.plugins import Plugins

Inbox = deque[tuple[int, RequestOutput | InarchError]]  # (number of the prompt, output)


class Engine:
    """Generate in this process: `with Engine(EngineConfig(model="...")) as engine: ...`

    Without a configuration the bundled model is served on the best backend that is there.
    plugins: those to serve with; by default all that are installed. Not safe to use from several
    threads at once; AsyncEngine has the same for an event loop.
    """

    def __init__(
        self, config: EngineConfig | None = None, *, plugins: Plugins | None = None
    ) -> None:
        from inarch.engine.resolve import resolve, set_environment
        from inarch.plugins import load_plugins

        plugins = plugins or load_plugins()
        config, backend = resolve(config or EngineConfig(), plugins)
        set_environment(backend)
        from inarch.engine.build import build  # imports torch, after the environment is set

        assert config.model is not None
        self.config = config
        self.tokenizer = Tokenizer.load(Path(config.model), chat_template=config.chat_template)
        self._built = build(config, backend, plugins)
        self._core = self._built.core
        self._frontend = Frontend(self.tokenizer, self.info, config.random_seed, self._fail)
        self._request_ids = itertools.count()
        self._inboxes: dict[
            str, tuple[Inbox, int]
        ] = {}  # by request: its stream, and its number there

    @property
    def info(self) -> ModelInfo:
        return self._built.info

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Answer]:
        """Answer one prompt or many, as one batch; n answers each, in the order of the prompts.

        Without parameters the model's own recommendation is taken.
        """
        many = as_list(prompts)
        parts = Parts()
        for number, output in self.stream_batch(many, self._per_prompt(params, len(many))):
            parts.add(number, output)
        return parts.answers()

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        **variables: Any,
    ) -> list[Answer]:
        """As `generate`, what the assistant says next in one conversation or many.

        messages: as OpenAI's chat API has them. variables: for the chat template
        (enable_thinking=False). Raises InvalidRequestError if the model has no template, or it
        refuses the messages.
        """
        many = conversations(messages)
        return self.generate([self.tokenizer.encode_chat(m, **variables) for m in many], params)

    def encode(
        self,
        inputs: Prompt | Sequence[Prompt],
        *,
        dimensions: int | None = None,
        prompt_name: str | None = None,
        truncate: bool = False,
    ) -> list[Encoding]:
        """Embeddings of texts, or raw scores if the model is a classifier; in one batch.

        dimensions: how many to keep of each. prompt_name: one of the prompts that the model's
        makers put before texts, by what they are for. truncate: cut what is too long, in the
        methods below too. All of them raise InvalidRequestError.
        """
        asked = self._asking.vectors(as_list(inputs), dimensions, prompt_name, self._most(truncate))
        return self._run(asked)

    def classify(
        self, inputs: Prompt | Sequence[Prompt], *, truncate: bool = False
    ) -> list[np.ndarray]:
        """Of each input the probabilities of `info.head.labels`, float32 [labels]."""
        return self._run(self._asking.classes(as_list(inputs), self._most(truncate)))

    def score(
        self,
        first: str | Sequence[str],
        second: str | Sequence[str],
        *,
        instruction: str | None = None,
        truncate: bool = False,
    ) -> list[float]:
        """How well each text of `second` answers the one of `first`; one of `first` may go with all.

        A cross-encoder says so itself; of embeddings it is the cosine; a language model is asked for
        a yes or no, and may be told by `instruction` what to look for.
        """
        pairs = paired(first, second)
        return self._run(self._asking.pairs(pairs, instruction, self._most(truncate)))

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        truncate: bool = False,
    ) -> list[Ranked]:
        """The documents by falling score as answers to the query; of several alike the first one."""
        most = self._most(truncate)
        return self._run(self._asking.ranking(query, documents, instruction, most))[:top_n]

    @property
    def _asking(self) -> Asking:
        return Asking(self.tokenizer, self.info)

    def _most(self, truncate: bool) -> int | None:
        return self.info.max_request_tokens if truncate else None

    def _run(self, asked: Asked[T]) -> list[T]:
        return asked.judge(self.generate(asked.prompts, asked.params))

    def stream(
        self, prompt: Prompt, params: SamplingParams | None = None
    ) -> Generator[RequestOutput, None, None]:
        """Outputs of one prompt as they come. Leaving the loop early ends the request."""
        for _, output in self.stream_batch([prompt], self._per_prompt(params, 1)):
            yield output

    def stream_batch(
        self, prompts: Sequence[Prompt], params: Sequence[SamplingParams]
    ) -> Iterator[tuple[int, RequestOutput]]:
        """Outputs of many prompts as they come, each with the number of its prompt.

        Leaving the loop early ends the requests that are unfinished. Several streams may be open at
        once: they run in one batch.
        """
        inbox: Inbox = deque()
        opened: list[NewRequest] = []
        request_ids: list[str] = []
        try:
            for number, (prompt, wanted) in enumerate(zip(prompts, params, strict=True)):
                request_ids.append(str(next(self._request_ids)))
                self._inboxes[request_ids[-1]] = (inbox, number)
                ids = self._frontend.encode(prompt)
                opened += self._frontend.open(ids, wanted, request_id=request_ids[-1])
            waiting, unfinished = deque(opened), len(opened)
            while unfinished:
                while waiting and self._core.add(waiting[0]):
                    waiting.popleft()
                if not inbox:
                    self._step()
                while inbox:
                    number, output = inbox.popleft()
                    if isinstance(output, InarchError):
                        raise output
                    unfinished -= output.finish_reason is not None
                    yield number, output
        finally:
            for message in opened:
                self._frontend.close(message.handle)
                self._core.abort(Abort(handle=message.handle))
            for request_id in request_ids:
                del self._inboxes[request_id]

    def stats(self) -> Stats:
        """What the engine did so far and holds now."""
        return self._core.stats()

    def export_prefix(self, prompt: Prompt, namespace: str = "") -> bytes:
        """What is cached of a prompt, for another engine of the same model on any hardware.

        The bytes are a safetensors file of its tokens, keys and values. The cache holds full pages:
        less than a page at the end is left for the other engine to compute. Raises
        InvalidRequestError if nothing is cached, or the model's KV cannot be handed over.
        """
        tokens = np.array(self._frontend.encode(prompt), dtype=np.int32)
        return self._built.prefixes.export_prefix(tokens, namespace)

    def import_prefix(self, data: bytes, namespace: str = "") -> int:
        """Cache what another engine's `export_prefix` gave; how many of its tokens are cached now.

        A prompt that begins with them computes only the rest. Raises InvalidRequestError if the other
        engine runs another model, or keeps KV of another dtype or shape.
        """
        return self._built.prefixes.import_prefix(data, namespace)

    def close(self) -> None:
        """Give the device back. The engine cannot be used afterwards."""
        self._core.close()
        self._built.device.close()

    shutdown = close  # as SGLang's engine has it

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _step(self) -> None:
        """One step of the core; its outputs go to the streams that wait for them."""
        if not self._core.has_work:
            self._core.await_grammar()
        for tokens in self._core.step().values():
            outputs, cut = self._frontend.receive(tokens)
            for handle in cut:
                self._core.abort(Abort(handle=handle))
            for output in outputs:
                inbox, number = self._inboxes[output.request_id]
                inbox.append((number, output))
        for _, refused in self._core.take_refused():
            inbox, number = self._inboxes[self._frontend.samples[refused.handle].request_id]
            inbox.append((number, InvalidRequestError(refused.message, status=refused.status)))

    def _fail(self, request_id: str, error: InarchError) -> None:
        inbox, number = self._inboxes[request_id]
        inbox.append((number, error))

    def _per_prompt(
        self, params: SamplingParams | Sequence[SamplingParams] | None, count: int
    ) -> list[SamplingParams]:
        return per_prompt(params, count, self.info)
