"""Server-sent events: what is new goes out in one event a choice, at the client's own speed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any, Protocol

import msgspec
from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch_server.answers import Answers, Piece
from inarch_server.refusals import refusal
from inarch_server.service import CLIENT_GONE, REQUEST_ID, SERVICE

log = logging.getLogger("inarch.server")

# A client that takes nothing for so long has its request aborted: it holds a place in the batch.
STALLED_S = 60.0
GOODBYE_S = 1.0
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # a proxy must not collect the events
}
DONE = b"data: [DONE]\n\n"

_json = msgspec.json.Encoder().encode


class Events(Protocol):
    """How an endpoint words its stream."""

    def of(self, piece: Piece) -> Iterable[dict[str, Any]]:
        """Events for what is new of one choice."""

    def end(self) -> Iterable[dict[str, Any]]:
        """Events after the last choice has finished."""


async def stream(request: web.Request, answers: Answers, events: Events) -> web.StreamResponse:
    """Send the answers as events, ended by [DONE].

    An error before the first token is raised, and answered with its own status; a later one can
    only be an event of the stream.
    """
    first = await answers.take()
    response = web.StreamResponse(headers=HEADERS)
    try:
        await response.prepare(request)
        async for lump in _lumps(request, answers, events, first):
            async with asyncio.timeout(STALLED_S):
                await response.write(lump)  # waits while the client's buffers are full
        await response.write_eof()
    except asyncio.CancelledError:
        if request.app[SERVICE].out_of_patience.is_set() and response.prepared:
            await _say_goodbye(response, request[REQUEST_ID])
        raise
    except (ConnectionError, TimeoutError) as error:
        log.info("%s: the client %s", request[REQUEST_ID], error or "has stopped reading")
        request[CLIENT_GONE] = True
        if request.transport is not None:
            request.transport.abort()
    return response


async def _say_goodbye(response: web.StreamResponse, request_id: str) -> None:
    """Tell a client whose stream the server cuts short that it is not complete."""
    stopping = InvalidRequestError("the server is stopping", status=503, code="server_stopping")
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(GOODBYE_S):
            await response.write(_event(refusal(stopping, request_id).body) + DONE)
            await response.write_eof()


async def _lumps(
    request: web.Request, answers: Answers, events: Events, pieces: list[Piece]
) -> AsyncIterator[bytes]:
    try:
        while pieces:
            yield b"".join(_event(event) for piece in pieces for event in events.of(piece))
            pieces = await answers.take()
        yield b"".join(_event(event) for event in events.end())
    except Exception as error:
        yield _event(refusal(error, request[REQUEST_ID]).body)
    yield DONE


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + _json(value) + b"\n\n"
