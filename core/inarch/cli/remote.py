"""Answers in the terminal from any server that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from inarch.bench.client import Chunk, error_text
from inarch.bench.preflight import normalize_url
from inarch.errors import InarchError, InvalidRequestError

CONNECT_TIMEOUT_S = 10.0  # an answer itself may take as long as it likes
LONGEST_EVENT = 1 << 20  # bytes


class ServerReplies:
    """Answers to a conversation. `given` are fields of a chat completion request."""

    def __init__(
        self, url: str, model: str | None, api_key: str | None, given: Mapping[str, Any]
    ) -> None:
        """Without `model` the server is asked for its first one. Raises InarchError."""
        self._url = normalize_url(url) + "/v1"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.name = model or asyncio.run(self._first_model())
        self._body = {"model": self.name, "stream": True, **given}

    def reply(self, messages: Sequence[Mapping[str, str]]) -> Generator[str, None, None]:
        """The answer, piece by piece. Raises InarchError, and KeyboardInterrupt on Ctrl-C."""
        stream = self._stream(messages)
        with asyncio.Runner() as runner:
            while (piece := runner.run(_next(stream))) is not None:
                yield piece

    async def _stream(self, messages: Sequence[Mapping[str, str]]) -> AsyncIterator[str]:
        body = self._body | {"messages": list(messages)}
        async with self._request("POST", "/chat/completions", body) as response:
            async for line in response.content:
                if line.startswith(b"data:") and (text := _text(line[len(b"data:") :])):
                    yield text

    async def _first_model(self) -> str:
        async with self._request("GET", "/models") as response:
            try:
                return str((await response.json())["data"][0]["id"])
            except (ValueError, LookupError, TypeError):
                raise InarchError(
                    f"{response.url} does not list a model: name the one to talk to as MODEL"
                ) from None

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        url = self._url + path
        try:
            async with (
                aiohttp.ClientSession(
                    headers=self._headers, timeout=timeout, read_bufsize=LONGEST_EVENT
                ) as session,
                session.request(method, url, json=body) as response,
            ):
                if response.status != 200:
                    raise _refusal(response.status, url, error_text(await response.read()))
                yield response
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise InarchError(f"{url}: {str(error) or type(error).__name__}") from None


async def _next(stream: AsyncIterator[str]) -> str | None:
    return await anext(stream, None)


def _refusal(status: int, url: str, message: str) -> InarchError:
    if status in (400, 413, 422):  # about these messages: others may fare better
        return InvalidRequestError(message, status=status)
    return InarchError(f"{url} answers with HTTP {status}: {message}")


def _text(event: bytes) -> str:
    """The new text in a streamed event. Raises InarchError for an event that is an error."""
    event = event.strip()
    if event == b"[DONE]":
        return ""
    try:
        chunk = msgspec.json.decode(event, type=Chunk)
    except msgspec.DecodeError as error:
        raise InarchError(f"the server sent an event that cannot be read: {error}") from None
    if chunk.error is not None:
        raise InarchError(error_text(event))
    deltas = [choice.delta for choice in chunk.choices if choice.delta is not None]
    return "".join([delta.content or "" for delta in deltas])
