"""Answers in the terminal from any server that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from typing import Any

import msgspec

from inarch.bench.client import Chunk
from inarch.bench.preflight import normalize_url
from inarch.errors import InarchError
from inarch.lang.executors.http import Connection, new_session


class ServerReplies:
    """Answers to a conversation. `given` are fields of a chat completion request."""

    def __init__(
        self, url: str, model: str | None, api_key: str | None, given: Mapping[str, Any]
    ) -> None:
        """Without `model` the server is asked for its first one. Raises InarchError."""
        self._url = normalize_url(url) + "/v1"
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = Connection(headers, new_session)
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
        async for event in self._http.events(f"{self._url}/chat/completions", body):
            if text := _text(event):
                yield text

    async def _first_model(self) -> str:
        url = f"{self._url}/models"
        try:
            return str((await self._http.json("GET", url))["data"][0]["id"])
        except (LookupError, TypeError):
            raise InarchError(
                f"{url} does not list a model: name the one to talk to as MODEL"
            ) from None


async def _next(stream: AsyncIterator[str]) -> str | None:
    return await anext(stream, None)


def _text(event: Mapping[str, Any]) -> str:
    """The new text in a streamed event. Raises InarchError for one that is none of the API's."""
    try:
        chunk = msgspec.convert(event, Chunk)
    except msgspec.ValidationError as error:
        raise InarchError(f"the server sent an event that cannot be read: {error}") from None
    deltas = [choice.delta for choice in chunk.choices if choice.delta is not None]
    return "".join([delta.content or "" for delta in deltas])
