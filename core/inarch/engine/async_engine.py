"""The engine as an asyncio program uses it: prompts in, outputs out; the core is another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np

from inarch.engine.answers import Answer, Prompt, as_list, per_prompt
from inarch.engine.client import EngineClient
from inarch.engine.encoding import Asked, Asking, Encoding, Ranked, T, Text, paired
from inarch.engine.outputs import RequestOutput
from inarch.engine.side_by_side import answered, side_by_side
from inarch.errors import InarchError
from inarch.sampling import DEFAULT_TERMS, SamplingParams, Terms


class AsyncEngine(EngineClient):
    """Generates and encodes: `async with AsyncEngine(config) as engine: ...`; see Engine for one
    without an event loop.
    """

    async def generate(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        request_id: str | None = None,
        terms: Terms = DEFAULT_TERMS,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Outputs of a request as they come; samples of n > 1 are interleaved.

        Closing the iterator, or cancelling the task that runs it, ends the request at once. Raises
        InvalidRequestError before the first output, EngineDeadError at any time.
        """
        ids = await self.token_ids(prompt)
        queue: asyncio.Queue[RequestOutput | InarchError] = asyncio.Queue()
        name = self.begin(ids, params, queue.put_nowait, request_id=request_id, terms=terms)
        try:
            unfinished = params.n
            while unfinished:
                output = await queue.get()
                if isinstance(output, InarchError):
                    raise output
                yield output
                unfinished -= output.finish_reason is not None
        finally:
            self.end(name)

    async def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        params: SamplingParams | None = None,
        *,
        terms: Terms = DEFAULT_TERMS,
        **variables: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """As `generate`, what the assistant says next; see Engine.chat."""
        self._requests()
        ids = await asyncio.to_thread(self.tokenizer.encode_chat, messages, **variables)
        params = params or SamplingParams(**self.info.default_sampling)
        async with aclosing(self.generate(ids, params, terms=terms)) as outputs:
            async for output in outputs:
                yield output

    async def encode(
        self,
        inputs: Sequence[Text],
        *,
        dimensions: int | None = None,
        prompt_name: str | None = None,
        truncate: bool = False,
        terms: Terms = DEFAULT_TERMS,
    ) -> list[Encoding]:
        """As Engine.encode, of several inputs."""
        most = self._most(truncate)
        asked = await asyncio.to_thread(self._asking.vectors, inputs, dimensions, prompt_name, most)
        return await self._ask(asked, terms)

    async def classify(
        self, inputs: Sequence[Text], *, truncate: bool = False, terms: Terms = DEFAULT_TERMS
    ) -> list[np.ndarray]:
        """As Engine.classify, of several inputs."""
        most = self._most(truncate)
        return await self._ask(await asyncio.to_thread(self._asking.classes, inputs, most), terms)

    async def score(
        self,
        first: str | Sequence[str],
        second: str | Sequence[str],
        *,
        instruction: str | None = None,
        truncate: bool = False,
        terms: Terms = DEFAULT_TERMS,
    ) -> list[float]:
        """As Engine.score."""
        pairs, most = paired(first, second), self._most(truncate)
        asked = await asyncio.to_thread(self._asking.pairs, pairs, instruction, most)
        return await self._ask(asked, terms)

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        truncate: bool = False,
        terms: Terms = DEFAULT_TERMS,
    ) -> list[Ranked]:
        """As Engine.rerank."""
        most = self._most(truncate)
        asked = await asyncio.to_thread(self._asking.ranking, query, documents, instruction, most)
        return (await self._ask(asked, terms))[:top_n]

    @property
    def _asking(self) -> Asking:
        self._requests()
        return Asking(self.tokenizer, self.info)

    def _most(self, truncate: bool) -> int | None:
        return self.info.max_request_tokens if truncate else None

    async def _ask(self, asked: Asked[T], terms: Terms) -> list[T]:
        """Run all prompts at once; if one fails, or the caller is cancelled, the others end."""
        return asked.judge(await self.generate_batch(asked.prompts, asked.params, terms=terms))

    async def generate_batch(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        terms: Terms = DEFAULT_TERMS,
    ) -> list[Answer]:
        """As Engine.generate: whole answers to one prompt or many, in their order."""
        return await answered(self.stream_batch(as_list(prompts), params, terms=terms))

    def stream_batch(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        terms: Terms = DEFAULT_TERMS,
    ) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        """As Engine.stream_batch: outputs of many prompts, each with the number of its prompt."""
        self._requests()
        asked = zip(prompts, per_prompt(params, len(prompts), self.info), strict=True)
        return side_by_side(self, asked, terms)
