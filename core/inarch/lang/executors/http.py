"""Runs programs on a server that speaks OpenAI's API: ours, or anybody's.

Prompts are text or messages here; an open message is continued where the server can do that, which is
an extension of the API that ours and other open servers share.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from inarch.bench.client import error_text
from inarch.errors import InarchError, InvalidRequestError
from inarch.lang.choices import Scored
from inarch.lang.executors.executor import Piece
from inarch.lang.loop import submit
from inarch.lang.transcript import Transcript
from inarch.sampling import SamplingParams

CONNECT_TIMEOUT_S = 10.0  # an answer itself may take as long as it likes
LONGEST_EVENT = 1 << 20  # bytes
# What everybody's API knows; the rest are extensions of open servers, sent where they are set.
STANDARD = (
    "max_tokens", "temperature", "top_p", "n", "seed", "stop", "frequency_penalty",
    "presence_penalty", "logit_bias",
)  # fmt: skip
EXTENSIONS = (
    "min_tokens", "top_k", "min_p", "repetition_penalty", "stop_regex", "stop_token_ids",
    "ignore_eos", "skip_special_tokens",
)  # fmt: skip


class OpenAI:
    """model_name: as the server calls it. is_chat_model=False: plain text goes to /completions.

    api_key: else of the environment variable OPENAI_API_KEY.
    """

    def __init__(
        self,
        model_name: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key: str | None = None,
        is_chat_model: bool = True,
    ) -> None:
        self._model, self._url, self._chat_only = model_name, base_url.rstrip("/"), is_chat_model
        key = api_key or os.environ.get("OPENAI_API_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def defaults(self) -> Mapping[str, Any]:
        return {}  # the server has its own for what is not sent

    async def generate(
        self, transcript: Transcript, params: SamplingParams
    ) -> AsyncIterator[Piece]:
        route, body = self._prompt(transcript)
        body |= {
            "model": self._model,
            "stream": True,
            "stream_options": {"include_usage": True},
            **_fields(params),
        }
        reasons: dict[int, str | None] = {}
        usage: dict[str, Any] = {}
        async for event in self._events(route, body):
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                index, delta = choice["index"], choice.get("delta") or choice
                reasons[index] = choice.get("finish_reason") or reasons.get(index)
                if text := delta.get("content") or delta.get("text"):
                    yield Piece(text, index)
        for index, reason in reasons.items():
            yield Piece("", index, _meta(reason, usage))

    async def prepare(self, transcript: Transcript) -> None:
        """Such a server remembers what it likes; it is not asked to."""

    async def score(
        self, transcript: Transcript, choices: Sequence[str], unconditional: bool
    ) -> list[Scored]:
        raise InarchError(
            "select needs the log-probabilities of given text, which OpenAI's API does not tell: run"
            " it on RuntimeEndpoint or Runtime, or use gen(regex='a|b|c') where the server knows it"
        )

    def _prompt(self, transcript: Transcript) -> tuple[str, dict[str, Any]]:
        if not transcript.chat:
            if self._chat_only:
                raise InvalidRequestError(
                    f"{self._model} takes messages: put text in user(...) and gen in assistant(...)"
                )
            return "/completions", {"prompt": transcript.content}
        messages = [message.as_dict() for message in transcript.messages]
        if transcript.role != "assistant":
            raise InvalidRequestError(
                "gen() belongs in a message of the assistant: assistant(gen())"
            )
        if not transcript.content:
            return "/chat/completions", {"messages": messages}
        messages.append({"role": "assistant", "content": transcript.content})
        going_on = {"continue_final_message": True, "add_generation_prompt": False}
        return "/chat/completions", {"messages": messages, **going_on}

    async def _events(self, route: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        async with self._request("POST", self._url + route, body) as response:
            async for line in response.content:
                data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
                if data and data != b"[DONE]":
                    event = msgspec.json.decode(data)
                    if "error" in event:
                        raise InarchError(error_text(data))
                    yield event

    async def _json(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
        async with self._request(method, url, body) as response:
            return msgspec.json.decode(await response.read())

    @asynccontextmanager
    async def _request(
        self, method: str, url: str, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(
                    headers=self._headers, timeout=timeout, read_bufsize=LONGEST_EVENT
                ) as session,
                session.request(method, url, json=body) as response,
            ):
                if response.status != 200:
                    message = error_text(await response.read())
                    raise InarchError(f"{url} answers with HTTP {response.status}: {message}")
                yield response
        except (aiohttp.ClientError, OSError) as error:
            raise InarchError(f"{url}: {str(error) or type(error).__name__}") from None


class RuntimeEndpoint(OpenAI):
    """A server of ours: `RuntimeEndpoint("http://localhost:30000")`. Raises InarchError."""

    def __init__(self, base_url: str, *, api_key: str | None = None) -> None:
        root = base_url.rstrip("/")
        super().__init__(
            "", base_url=f"{root}/v1", api_key=api_key or os.environ.get("INARCH_API_KEY"),
            is_chat_model=False,
        )  # fmt: skip
        self._root = root
        found = submit(self._json("GET", f"{self._url}/models")).result()
        self._model = found["data"][0]["id"]

    def flush_cache(self) -> None:
        """Forget all cached prefixes; an admin route of the server."""
        submit(self._json("POST", f"{self._root}/flush_cache")).result()

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
        tokens = (await self._json("POST", f"{self._url}/tokenize", body))["tokens"]
        await self._compute([ids])
        found = await self._logprobs([[*ids, *own] for own in tokens], len(ids))
        alone: list[Any] = [()] * len(choices)
        if unconditional:
            alone = await self._logprobs([[ids[0], *own] for own in tokens], 1)
        parts = zip(choices, tokens, found, alone, strict=True)
        return [Scored(*part) for part in parts]

    async def _tokens(self, transcript: Transcript) -> list[int]:
        if not transcript.chat:
            body: dict[str, Any] = {"prompt": transcript.content}
        elif transcript.role is None:
            body = {"messages": transcript.as_messages()}
        else:
            _, body = self._prompt(transcript)
            body.pop("add_generation_prompt", None)
        found = await self._json("POST", f"{self._url}/tokenize", body)
        tokens: list[int] = found["tokens"]
        return tokens

    async def _logprobs(self, prompts: list[list[int]], start: int) -> list[list[float]]:
        """Of the tokens of each prompt from `start` on, which is 1 or more."""
        asked = {"return_logprob": True, "logprob_start_len": start - 1}
        entries = [meta["input_token_logprobs"] for meta in await self._compute(prompts, **asked)]
        return [[logprob for logprob, *_ in own[1:]] for own in entries]

    async def _compute(self, prompts: list[list[int]], **asked: Any) -> list[dict[str, Any]]:
        """Compute prompts and generate nothing: what is told of each."""
        body = {"input_ids": prompts, "sampling_params": {"max_new_tokens": 0}, **asked}
        answers = await self._json("POST", f"{self._root}/generate", body)
        return [answer["meta_info"] for answer in answers]


def _fields(params: SamplingParams) -> dict[str, Any]:
    """What is set of the parameters, in the words of the API."""
    stated = msgspec.to_builtins(params)  # leaves defaults out
    fields = {name: stated[name] for name in (*STANDARD, *EXTENSIONS) if name in stated}
    if params.grammar is not None:
        fields |= _grammar(params.grammar.kind, params.grammar.source)
    if params.logprobs is not None:
        raise InvalidRequestError(
            "log-probabilities of generated tokens come from Runtime alone", param="return_logprob"
        )
    return fields


def _grammar(kind: str, source: str) -> dict[str, Any]:
    if kind in ("regex", "ebnf"):
        return {kind: source}
    schema = {"name": "answer", "schema": msgspec.json.decode(source), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _meta(reason: str | None, usage: Mapping[str, Any]) -> dict[str, Any]:
    details = usage.get("prompt_tokens_details") or {}
    return {
        "finish_reason": {"type": reason},
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "cached_tokens": details.get("cached_tokens"),
    }
