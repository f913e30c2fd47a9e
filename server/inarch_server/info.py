"""Routes that tell about the server: its models, health, metrics and the page to chat on."""

from __future__ import annotations

import asyncio
from functools import cache
from importlib.resources import files
from typing import Any

from aiohttp import web

from inarch.errors import EngineDeadError
from inarch_server.openai_common import json_response
from inarch_server.service import SERVICE, Service

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
STATS_TIMEOUT_S = 10.0  # the engine answers between two steps
# The page brings everything along and talks to nobody but this server.
PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline'; img-src data:"
)


def _describe(service: Service) -> dict[str, Any]:
    return {
        "id": service.model,
        "object": "model",
        "created": service.created,
        "owned_by": "inarch",
        "max_model_len": service.engine.info.context_length,
    }


async def models(request: web.Request) -> web.Response:
    return json_response({"object": "list", "data": [_describe(request.app[SERVICE])]})


async def model(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    service.check_model(request.match_info["id"])
    return json_response(_describe(service))


async def health(request: web.Request) -> web.Response:
    await request.app[SERVICE].health.check()
    return json_response({"status": "ok"})


async def health_generate(request: web.Request) -> web.Response:
    """Makes a token in any case, however recent the last one is."""
    await request.app[SERVICE].health.check(fresh_s=0.0)
    return json_response({"status": "ok"})


async def metrics(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    try:
        async with asyncio.timeout(STATS_TIMEOUT_S):
            stats = await service.engine.stats()
    except (EngineDeadError, TimeoutError):
        stats = None
    body = service.metrics.render(stats)
    return web.Response(body=body, headers={"Content-Type": PROMETHEUS_TEXT})


async def page(_: web.Request) -> web.Response:
    headers = {"Content-Security-Policy": PAGE_POLICY}
    return web.Response(text=_page(), content_type="text/html", headers=headers)


@cache
def _page() -> str:
    return files("inarch_server").joinpath("static/index.html").read_text(encoding="utf-8")
