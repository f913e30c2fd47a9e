"""Requests to a server, and the events of its streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from inarch.bench.client import error_text
from inarch.errors import InarchError

CONNECT_TIMEOUT_S = 10.0  # an answer itself may take as long as it likes
LONGEST_EVENT = 1 << 20  # bytes


class Connection:
    """headers: of every request. All errors are InarchError."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)

    async def events(self, url: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The data of each server-sent event of an answer."""
        async with self._request("POST", url, body) as response:
            async for line in response.content:
                data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
                if data and data != b"[DONE]":
                    event = msgspec.json.decode(data)
                    if event.get("error"):
                        raise InarchError(error_text(data))
                    yield event

    async def json(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
        async with self._request(method, url, body) as response:
            return msgspec.json.decode(await response.read())

    async def order(self, url: str) -> None:
        """What is answered in words for people."""
        async with self._request("POST", url):
            pass

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
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise InarchError(f"{url}: {str(error) or type(error).__name__}") from None


def cut_off(url: str) -> InarchError:
    return InarchError(f"{url}: the answer ended before it was complete")
