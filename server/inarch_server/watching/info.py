"""Routes that tell about the server: its health and metrics."""

from __future__ import annotations

from aiohttp import web

from inarch_server.http.encoding import json_response
from inarch_server.service import SERVICE
from inarch_server.watching.live import ask

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


async def health(request: web.Request) -> web.Response:
    await request.app[SERVICE].health.check()
    return json_response({"status": "ok"})


async def health_generate(request: web.Request) -> web.Response:
    """Makes a token in any case, however recent the last one is."""
    await request.app[SERVICE].health.check(fresh_s=0.0)
    return json_response({"status": "ok"})


async def metrics(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = service.metrics.render(await ask(service))
    return web.Response(body=body, headers={"Content-Type": PROMETHEUS_TEXT})
