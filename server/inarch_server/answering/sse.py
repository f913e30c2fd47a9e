"""Streams: what is new goes out in one event a choice, at the client's own speed."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Protocol

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch_server.answering.answers import Answers, Piece
from inarch_server.http.apis import api_of
from inarch_server.http.encoding import encode
from inarch_server.http.refusals import refusal
from inarch_server.service import CLIENT_GONE, REFUSED, REQUEST_ID, SERVICE

log = logging.getLogger("inarch.server")

# A client that takes nothing for so long has its request aborted: it holds a place in the batch.
STALLED_S = 60.0
GOODBYE_S = 1.0
# Bytes in a connection's write buffer below which asyncio lets a writer go on (its low-water mark).
NEVER_WAITS = 16 << 10
HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # a proxy must not collect the events
}
DONE = b"data: [DONE]\n\n"


class Events(Protocol):
    """How an endpoint words its stream: events as they go over the wire, empty for none."""

    def begin(self) -> bytes:
        """What comes before all else, once it is sure that the request is not refused."""

    def of(self, piece: Piece) -> bytes:
        """What is new of one choice."""

    def end(self) -> bytes:
        """What comes after the last choice has finished."""

    def error(self, body: dict[str, Any]) -> bytes:
        """What comes instead if something went wrong; `body` is that of OpenAI's errors."""


class DataEvents:
    """For streams of events without names, ended by [DONE]."""

    def begin(self) -> bytes:
        return b""

    def end(self) -> bytes:
        return DONE

    def error(self, body: dict[str, Any]) -> bytes:
        return event(encode(body)) + DONE


def event(data: bytes) -> bytes:
    """An event without a name. `data` is a line."""
    return b"data: %b\n\n" % data


def named_event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


async def stream(request: web.Request, answers: Answers, events: Events) -> web.StreamResponse:
    """Send the answers as events.

    An error before the first token is raised, and answered with its own status; a later one can
    only be an event of the stream.
    """
    await answers.wait()
    media = api_of(request.path).stream
    response = web.StreamResponse(headers={"Content-Type": media, **HEADERS})
    try:
        await response.prepare(request)
        if first := events.begin():
            await _write(request, response, first)
        more = True
        while more:
            lump, more = await _news(request, answers, events)
            await _write(request, response, lump)
        await response.write_eof()
    except asyncio.CancelledError:
        if request.app[SERVICE].out_of_patience.is_set() and response.prepared:
            await _say_goodbye(response, events, request[REQUEST_ID])
        raise
    except (ConnectionError, TimeoutError) as error:
        log.info("%s: the client %s", request[REQUEST_ID], error or "has stopped reading")
        request[CLIENT_GONE] = True
        if request.transport is not None:
            request.transport.abort()
    return response


async def _say_goodbye(response: web.StreamResponse, events: Events, request_id: str) -> None:
    """Tell a client whose stream the server cuts short that it is not complete."""
    stopping = InvalidRequestError("the server is stopping", status=503, code="server_stopping")
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(GOODBYE_S):
            await response.write(events.error(refusal(stopping, request_id).body))
            await response.write_eof()


async def _news(request: web.Request, answers: Answers, events: Events) -> tuple[bytes, bool]:
    """All events that there are by now, and whether there will be more."""
    try:
        if pieces := await answers.take():
            return b"".join([events.of(piece) for piece in pieces]), True
        return events.end(), False
    except Exception as error:
        body = refusal(error, request[REQUEST_ID]).body
        request[REFUSED] = body["error"]
        return events.error(body), False


async def _write(request: web.Request, response: web.StreamResponse, lump: bytes) -> None:
    """Hand events to the connection; waits while the client's buffers are full."""
    transport = request.transport
    if transport is not None and transport.get_write_buffer_size() + len(lump) < NEVER_WAITS:
        await response.write(lump)  # without a timer, which would cost as much as the writing
        return
    async with asyncio.timeout(STALLED_S):
        await response.write(lump)
