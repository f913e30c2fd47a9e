"""Which web pages of other origins may use the server: none, unless --cors-origins names them.

The page at / comes from the server itself and needs no leave. A server that any page may use could
be used by every page that its user happens to open, behind the firewall and on localhost alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

ANY = "*"
PREFLIGHT_S = 600  # for which a browser may remember what it was told
METHODS = "GET, POST, PUT, DELETE"
ORIGINS: web.AppKey[frozenset[str]] = web.AppKey("origins", frozenset)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def parse_origins(option: str | None) -> frozenset[str]:
    """`https://a.example,https://b.example`, or `*` for all."""
    return frozenset(filter(None, (origin.strip() for origin in (option or "").split(","))))


@web.middleware
async def answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A browser asks before it sends: without a key, so this goes before authentication."""
    asks = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    if request.method != hdrs.METH_OPTIONS or not asks or allowed_origin(request) is None:
        return await handler(request)
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: request.headers.get(
            hdrs.ACCESS_CONTROL_REQUEST_HEADERS, ""
        ),
        hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_S),
    }
    return web.Response(status=204, headers=headers)


async def allow_origin(request: web.Request, response: web.StreamResponse) -> None:
    """Mark every answer to an allowed page, refusals too, so that the page can read it."""
    if not request.app[ORIGINS]:
        return
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    origin = allowed_origin(request)
    if origin is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = "X-Request-Id, Retry-After"


def allowed_origin(request: web.Request) -> str | None:
    origins, origin = request.app[ORIGINS], request.headers.get(hdrs.ORIGIN)
    if ANY in origins:
        return ANY
    return origin if origin in origins else None
