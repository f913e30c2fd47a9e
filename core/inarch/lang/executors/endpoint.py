"""Runs programs on a server of ours, by its native API: prompts are tokens, and nothing is left out.

Where an answer must be read for calls or reasoning the server's chat API does it, as it is configured.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import msgspec

from inarch.errors import InvalidRequestError
from inarch.lang.choices import Scored
from inarch.lang.executors.engine import NO_PICTURES
from inarch.lang.executors.executor import Piece, Wanted
from inarch.lang.executors.http import cut_off
from inarch.lang.executors.openai import OpenAI, continued
from inarch.lang.loop import submit
from inarch.lang.transcript import Encoded, Transcript
from inarch.sampling import SamplingParams

RENAMED = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens", "seed": "sampling_seed"}
LOGPROBS = ("logprobs", "prompt_logprobs", "logprob_start")


class RuntimeEndpoint(OpenAI):
    """A server of ours: `RuntimeEndpoint("http://localhost:30000")`. Raises InarchError.

    api_key: else of the environment variable INARCH_API_KEY.
    """

    no_pictures = NO_PICTURES
    writes_ahead = False  # what was said is in the server's prefix cache

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        self._root = base_url.rstrip("/")
        super().__init__(
            "", base_url=f"{self._root}/v1", api_key=api_key or os.environ.get("INARCH_API_KEY"),
            is_chat_model=False,
        )  # fmt: skip
        found = submit(self._http.json("GET", f"{self._url}/models")).result()
        self._model = found["data"][0]["id"]

    def flush_cache(self) -> None:
        """Forget all cached prefixes; an admin route of the server."""
        submit(self._http.order(f"{self._root}/flush_cache")).result()

    def get_server_info(self) -> dict[str, Any]:
        """Of the model, and how the server is configured."""
        found = submit(self._http.json("GET", f"{self._root}/server_info"))
        info: dict[str, Any] = found.result()
        return info

    async def generate(self, transcript: Transcript, wanted: Wanted) -> AsyncGenerator[Piece, None]:
        if wanted.tools or wanted.reasoning is not None:
            if not transcript.chat:
                raise InvalidRequestError(
                    "a server reads calls and reasoning of messages: assistant(gen(...))"
                )
            async for piece in super().generate(transcript, wanted):
                yield piece
            return
        url, seen, over = f"{self._root}/generate", dict[int, int](), 0
        ids = await self._tokens(transcript)
        body = {"input_ids": ids, **_native(wanted.params), "stream": True}
        if wanted.lora is not None:
            body["lora_path"] = wanted.lora
        async for event in self._http.events(url, body):
            index, text, meta = event.get("index", 0), event["text"], event["meta_info"]
            new, seen[index] = text[seen.get(index, 0) :], len(text)
            ended = meta["finish_reason"] is not None
            over += ended
            if ended and index == 0:
                transcript.encoded = _extended(transcript.encoded.text, ids, event)
            yield Piece(new, index, meta if ended else None)
        if over < wanted.params.n:
            raise cut_off(url)

    async def prepare(self, transcript: Transcript) -> None:
        """Its prefix cache keeps what it has computed: compute it, and generate nothing."""
        if transcript.role in ("system", "user"):  # no server renders half a message of these
            transcript = Transcript(transcript.messages)
        if transcript.chat or transcript.content:
            await self._compute([await self._tokens(transcript)])

    async def score(
        self, transcript: Transcript, choices: Sequence[str], unconditional: bool
    ) -> list[Scored]:
        ids = await self._tokens(transcript)
        if not ids:
            raise InvalidRequestError("select needs some text before it")
        body = {"prompt": list(choices), "add_special_tokens": False}
        tokens = (await self._http.json("POST", f"{self._url}/tokenize", body))["tokens"]
        await self._compute([ids])
        found, texts = await self._logprobs([[*ids, *own] for own in tokens], len(ids))
        alone: list[Any] = [()] * len(choices)
        if unconditional:
            alone, _ = await self._logprobs([[ids[0], *own] for own in tokens], 1)
        parts = zip(choices, tokens, texts, found, alone, strict=True)
        return [Scored(*part) for part in parts]

    async def _tokens(self, transcript: Transcript) -> list[int]:
        """All of the transcript; what was known of it, or generated, stays as it was."""
        known = transcript.encoded
        text, tokens = await self._rendered(transcript)
        if known.text and text.startswith(known.text):
            more = text[len(known.text) :]
            rest = await self._tokenized(more, special=False) if more else []
            tokens = [*known.ids, *rest]
        elif tokens is None:
            tokens = await self._tokenized(text)
        transcript.encoded = Encoded(text, tuple(tokens))
        return tokens

    async def _rendered(self, transcript: Transcript) -> tuple[str, list[int] | None]:
        """As text, and the tokens of it where they come with it."""
        if not transcript.chat:
            return transcript.content, None
        if transcript.role is None:
            body: dict[str, Any] = {"messages": transcript.as_messages()}
        elif transcript.role == "assistant":
            body = continued(transcript)
            body.pop("add_generation_prompt", None)
        else:
            raise InvalidRequestError(
                f"a server continues messages of the assistant alone, not one of the"
                f" {transcript.role}: assistant(gen(...)), or run it on Runtime"
            )
        found = await self._http.json(
            "POST", f"{self._url}/tokenize", {**body, "return_text": True}
        )
        return found["text"], found["tokens"]

    async def _tokenized(self, text: str, *, special: bool = True) -> list[int]:
        body = {"prompt": text, "add_special_tokens": special}
        found = await self._http.json("POST", f"{self._url}/tokenize", body)
        tokens: list[int] = found["tokens"]
        return tokens

    async def _logprobs(
        self, prompts: list[list[int]], start: int
    ) -> tuple[list[list[float]], list[list[str]]]:
        """Of the tokens of each prompt from `start` on, which is 1 or more, and their texts."""
        asked = {
            "return_logprob": True,
            "logprob_start_len": start - 1,
            "return_text_in_logprobs": True,
        }
        told = [m["input_token_logprobs"][1:] for m in await self._compute(prompts, **asked)]
        found = [[logprob for logprob, _, _ in own] for own in told]
        return found, [[text for _, _, text in own] for own in told]

    async def _compute(self, prompts: list[list[int]], **asked: Any) -> list[dict[str, Any]]:
        """Compute prompts and generate nothing: what is told of each."""
        body = {"input_ids": prompts, "sampling_params": {"max_new_tokens": 0}, **asked}
        answers = await self._http.json("POST", f"{self._root}/generate", body)
        return [answer["meta_info"] for answer in answers]


def _extended(prompt: str, ids: list[int], answer: Mapping[str, Any]) -> Encoded:
    """With the answer's own tokens, unless a stop string has cut it."""
    written: list[int] = answer["output_ids"]
    matched = answer["meta_info"]["finish_reason"].get("matched")
    if isinstance(matched, str):
        return Encoded(prompt, tuple(ids))
    kept = written[:-1] if isinstance(matched, int) else written
    return Encoded(prompt + answer["text"], (*ids, *kept))


def _native(params: SamplingParams) -> dict[str, Any]:
    """What is set of the parameters, in the words of the native API."""
    stated = msgspec.to_builtins(params)  # leaves defaults out
    stated.pop("grammar", None)
    fields = {RENAMED.get(k, k): v for k, v in stated.items() if k not in LOGPROBS}
    if params.grammar is not None:
        fields[params.grammar.kind] = params.grammar.source
    if params.logprobs is None:
        return {"sampling_params": fields}
    of_prompt = params.prompt_logprobs is not None
    return {
        "sampling_params": fields,
        "return_logprob": True,
        "top_logprobs_num": params.logprobs,
        "logprob_start_len": params.logprob_start if of_prompt else -1,
        "return_text_in_logprobs": True,
    }
