"""Requests to a server, and the events of its streams."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from inarch.bench.client import KEEPALIVE_S, error_text
from inarch.errors import InarchError, InvalidRequestError

CONNECT_TIMEOUT_S = 10.0  # an answer itself may take as long as it likes
LONGEST_EVENT = 1 << 20  # bytes
ABOUT_THE_REQUEST = (400, 413, 422)  # others may fare better

Session = Callable[[], AbstractAsyncContextManager[aiohttp.ClientSession]]


def new_session() -> aiohttp.ClientSession:
    """One for a single request, or for the lifetime of an event loop."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=LONGEST_EVENT,
    )


# By event loop. A forked process has a loop of its own, and leaves its parent's connections alone.
_kept: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}


@asynccontextmanager
async def kept_session() -> AsyncIterator[aiohttp.ClientSession]:
    """The one of the running event loop, which goes on to the end of the process, and its
    connections with it: they serve one request after the other."""
    loop = asyncio.get_running_loop()
    if loop not in _kept:
        _kept[loop] = new_session()
    yield _kept[loop]


class Connection:
    """headers: of every request. All errors are InarchError; an InvalidRequestError is about the
    one request that the server refused."""

    def __init__(self, headers: Mapping[str, str], session: Session = kept_session) -> None:
        self._headers, self._session = dict(headers), session

    async def events(self, url: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The data of each server-sent event of an answer."""
        async with self._request("POST", url, body) as response:
            async for line in response.content:
                data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
                if data and data != b"[DONE]":
                    yield _event(data)

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
        try:
            async with (
                self._session() as session,
                session.request(method, url, json=body, headers=self._headers) as response,
            ):
                if response.status != 200:
                    raise _refusal(url, response.status, error_text(await response.read()))
                yield response
        except aiohttp.ClientConnectorError as error:
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else str(error)
            raise InarchError(f"cannot reach {url} ({reason}): is the server running?") from None
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            # TimeoutError is an OSError
            raise InarchError(f"{url}: {str(error) or type(error).__name__}") from None


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InarchError(f"the server sent an event that cannot be read: {error}") from None
    if event.get("error"):
        raise InarchError(error_text(data))
    return event


def _refusal(url: str, status: int, message: str) -> InarchError:
    told = f"{url} answers with HTTP {status}: {message}"
    if status in ABOUT_THE_REQUEST:
        return InvalidRequestError(told, status=status)
    return InarchError(told)


def cut_off(url: str) -> InarchError:
    return InarchError(f"{url}: the answer ended before it was complete")
