"""What happens to every request, whichever handler it reaches: id, key, errors, count."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from inarch_server.http.access import check_access
from inarch_server.http.apis import api_of
from inarch_server.http.cors import answer_preflights
from inarch_server.http.refusals import refusal
from inarch_server.service import CLIENT_GONE, RECEIVED_S, REFUSED, REQUEST_ID, SERVICE
from inarch_server.watching.account import tell

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

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
    method = request.method if request.method in hdrs.METH_ALL else "unknown"
    status = CLIENT_CLOSED_REQUEST
    service.metrics.request(endpoint, method)
    task = asyncio.current_task()
    assert task is not None
    service.running[task] = request
    try:
        response = await handler(request)
        if not request.get(CLIENT_GONE):
            status = response.status
        return response
    finally:
        del service.running[task]
        service.metrics.response(endpoint, method, status)
        tell(service.observers, request, endpoint, status)


@web.middleware
async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:  # not CancelledError: the client has gone, or the server stops
        answer = refusal(error, request[REQUEST_ID])
        request[REFUSED] = answer.body["error"]
        return api_of(request.path).refuse(answer).response()


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    check_access(request)
    return await handler(request)


# From the outside in.
MIDDLEWARES = (identify, count, refuse, answer_preflights, authenticate)
