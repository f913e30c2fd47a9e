"""GET /v1/models: what is served, under its name."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from inarch_server.http.encoding import json_response
from inarch_server.service import SERVICE, Service


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
