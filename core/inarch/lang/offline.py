"""The offline engine in SGLang's words, for scripts that were written for it: prompts and a dictionary
of sampling parameters in, dictionaries out. `inarch.Engine` is the same in types of our own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from inarch.engine.answers import as_list, per_prompt
from inarch.engine.side_by_side import side_by_side
from inarch.errors import InvalidRequestError
from inarch.lang.executors.engine import Runtime, Said
from inarch.lang.loop import submit
from inarch.lang.words import sampling_fields
from inarch.sampling import DEFAULT_TERMS, SamplingParams

Prompts = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
Asked = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
Told = dict[str, Any]  # text, output_ids, meta_info, and the index of the prompt


class Engine:
    """`Engine(model_path="MODEL")` starts an engine; programs run on it too.

    options: fields of EngineConfig. Raises InarchError if the engine cannot be started. Methods may
    be called from any thread and, those with async_ in front, in any event loop.
    """

    def __init__(self, model_path: str | None = None, **options: Any) -> None:
        self.runtime = Runtime(model_path, **options)

    def generate(
        self,
        prompt: Prompts | None = None,
        sampling_params: Asked = None,
        input_ids: Prompts | None = None,
        *,
        stream: bool = False,
        **logprobs: Any,
    ) -> Any:
        """What the model writes behind one prompt (a dictionary) or many (a list of them, n for each).

        Exactly one of prompt and input_ids. stream: an iterator of dictionaries, each with all the
        text so far of its prompt, which `index` tells. logprobs: return_logprob, top_logprobs_num,
        logprob_start_len. Raises InarchError.
        """
        outputs = self._begun(prompt, input_ids, sampling_params, logprobs, every=stream)
        if stream:
            return _in_thread(outputs)
        return submit(_gathered(outputs, one=_is_one(prompt, input_ids))).result()

    async def async_generate(
        self,
        prompt: Prompts | None = None,
        sampling_params: Asked = None,
        input_ids: Prompts | None = None,
        *,
        stream: bool = False,
        **logprobs: Any,
    ) -> Any:
        """As `generate`, in an event loop; with stream, what is awaited is an async iterator."""
        outputs = self._begun(prompt, input_ids, sampling_params, logprobs, every=stream)
        if stream:
            return _elsewhere(outputs)
        one = _is_one(prompt, input_ids)
        return await asyncio.wrap_future(submit(_gathered(outputs, one=one)))

    def encode(self, prompt: str | Sequence[str]) -> Any:
        """{"embedding": ...} of a text, or a list of these, of a model that makes them."""
        return submit(self._encode(prompt)).result()

    async def async_encode(self, prompt: str | Sequence[str]) -> Any:
        return await asyncio.wrap_future(submit(self._encode(prompt)))

    async def _encode(self, prompt: str | Sequence[str]) -> Any:
        found = [
            {
                "embedding": one.vector.tolist(),
                "meta_info": {"prompt_tokens": one.prompt_tokens},
            }
            for one in await self.runtime.engine.encode(as_list(prompt))
        ]
        return found[0] if isinstance(prompt, str) else found

    def _begun(
        self,
        prompt: Prompts | None,
        ids: Prompts | None,
        asked: Asked,
        logprobs: Mapping[str, Any],
        *,
        every: bool,
    ) -> AsyncGenerator[Told, None]:
        if (prompt is None) == (ids is None):
            raise InvalidRequestError("exactly one of prompt and input_ids is needed")
        given = prompt if prompt is not None else ids
        assert given is not None
        prompts = as_list(given)
        wanted = asked if isinstance(asked, Sequence) else [asked or {}] * len(prompts)
        defaults = self.runtime.defaults()
        params = [
            SamplingParams(**{**defaults, **sampling_fields({**one, **logprobs})}) for one in wanted
        ]
        info = self.runtime.engine.info
        return self._told(prompts, per_prompt(params, len(prompts), info), every=every)

    async def _told(
        self, prompts: Sequence[Any], params: Sequence[SamplingParams], *, every: bool
    ) -> AsyncGenerator[Told, None]:
        """every: not only what is complete."""
        self.runtime.check_process()
        engine, said = self.runtime.engine, dict[tuple[int, int], Said]()
        ids = [await engine.token_ids(prompt) for prompt in prompts]
        pairs = zip(ids, params, strict=True)
        async with aclosing(side_by_side(engine, pairs, DEFAULT_TERMS)) as outputs:
            async for number, output in outputs:
                one = said.setdefault((number, output.index), Said())
                one.add(output)
                if not every and output.finish_reason is None:
                    continue
                meta = self.runtime.meta(output, one, ids[number], params[number])
                yield {
                    "text": one.text,
                    "output_ids": list(one.token_ids),
                    "meta_info": meta,
                    "index": number,
                    "sample": output.index,
                }

    def flush_cache(self) -> None:
        """Forget all cached prefixes."""
        self.runtime.flush_cache()

    def get_server_info(self) -> dict[str, Any]:
        """Of the model and what it runs on."""
        return self.runtime.get_server_info()

    def shutdown(self) -> None:
        self.runtime.shutdown()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def _is_one(prompt: Prompts | None, ids: Prompts | None) -> bool:
    given = prompt if prompt is not None else ids
    return isinstance(given, str) or (bool(given) and isinstance(given[0], int))  # type: ignore[index]


async def _gathered(outputs: AsyncGenerator[Told, None], *, one: bool) -> Any:
    last = {(told["index"], told["sample"]): told async for told in outputs}
    found = [last[key] for key in sorted(last)]
    return found[0] if one and len(found) == 1 else found


def _in_thread(outputs: AsyncGenerator[Told, None]) -> Iterator[Told]:
    """Each as it comes; leaving the loop early ends what runs."""
    try:
        while (told := submit(_next(outputs)).result()) is not None:
            yield told
    finally:
        submit(_closed(outputs)).result()


async def _elsewhere(outputs: AsyncGenerator[Told, None]) -> AsyncGenerator[Told, None]:
    try:
        while (told := await asyncio.wrap_future(submit(_next(outputs)))) is not None:
            yield told
    finally:
        submit(_closed(outputs))


async def _next(outputs: AsyncGenerator[Told, None]) -> Told | None:
    return await anext(outputs, None)


async def _closed(outputs: AsyncGenerator[Told, None]) -> None:
    await outputs.aclose()
