"""Routes that tell about the server: its models, health and metrics."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from inarch_server.live import ask
from inarch_server.openai_common import json_response
from inarch_server.service import SERVICE, Service

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


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
    body = service.metrics.render(await ask(service))
    return web.Response(body=body, headers={"Content-Type": PROMETHEUS_TEXT})
