"""What happens to every request, whichever handler it reaches: id, key, errors, count."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from inarch.errors import InvalidRequestError
from inarch_server.apis import api_of
from inarch_server.cors import answer_preflights
from inarch_server.refusals import refusal
from inarch_server.service import CLIENT_GONE, RECEIVED_S, REQUEST_ID, SERVICE

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN = frozenset({"/health", "/"})  # probes send no key; the page asks its reader for one
CLIENT_CLOSED_REQUEST = 499
HEADER = "X-Request-Id"
_SANE_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)


@web.middleware
async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A request keeps the id that its client gave it, so that logs can be joined."""
    request[RECEIVED_S] = time.perf_counter()
    given = request.headers.get(HEADER, "")
    request[REQUEST_ID] = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
    return await handler(request)


async def show_id(request: web.Request, response: web.StreamResponse) -> None:
    if REQUEST_ID in request:
        for name in api_of(request.path).id_headers:
            response.headers[name] = request[REQUEST_ID]


@web.middleware
async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Keep the list of running requests, and the number of all by endpoint and status."""
    service = request.app[SERVICE]
    resource = request.match_info.route.resource
    endpoint = resource.canonical if resource else "unknown"
    status = CLIENT_CLOSED_REQUEST
    task = asyncio.current_task()
    assert task is not None
    service.running.add(task)
    try:
        response = await handler(request)
        if not request.get(CLIENT_GONE):
            status = response.status
        return response
    finally:
        service.running.discard(task)
        service.metrics.requests.labels(endpoint, str(status)).inc()


@web.middleware
async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:  # not CancelledError: the client has gone, or the server stops
        answer = refusal(error, request[REQUEST_ID])
        return api_of(request.path).refuse(answer).response()


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    key = request.app[SERVICE].config.api_key
    if key is not None and request.path not in OPEN:
        sent = request.headers.get(hdrs.AUTHORIZATION) or _given_bare(request)
        wanted = f"Bearer {key}"
        # In constant time: how long a refusal takes must not tell how much of the key was right.
        if not hmac.compare_digest(sent.encode(errors="surrogateescape"), wanted.encode()):
            what = "the API key is wrong" if sent else "an API key is needed"
            raise InvalidRequestError(
                f"{what}; send it as 'Authorization: Bearer KEY'",
                status=401,
                code="invalid_api_key",
            )
    return await handler(request)


def _given_bare(request: web.Request) -> str:
    """The key as Anthropic's clients may send it, in the form of the usual header."""
    bare = request.headers.get("x-api-key")
    return f"Bearer {bare}" if bare else ""


# From the outside in.
MIDDLEWARES = (identify, count, refuse, answer_preflights, authenticate)
