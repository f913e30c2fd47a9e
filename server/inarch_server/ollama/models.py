"""GET /api/tags, /api/ps, /api/version and POST /api/show: what Ollama's clients ask of models."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import model_validator

from inarch.errors import InvalidRequestError
from inarch.version import __version__
from inarch_server.http.body import Body, read_body
from inarch_server.http.encoding import json_response
from inarch_server.ollama.answers import check_model, timestamp
from inarch_server.service import SERVICE, Service

# Clients compare it to know what the server can do: of the API that is spoken, and our own behind it.
SPOKEN = "0.12.0"
NEVER = "9999-12-31T23:59:59Z"


class ShowRequest(Body):
    model: str | None = None
    name: str | None = None  # where older clients have model

    @model_validator(mode="after")
    def _named(self) -> ShowRequest:
        if self.model is None and self.name is None:
            raise InvalidRequestError("model is required", param="model")
        return self


async def version(_: web.Request) -> web.Response:
    return json_response({"version": f"{SPOKEN}+inarch.{__version__}"})


async def tags(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    listed = await asyncio.to_thread(_listed, service)
    return json_response({"models": [{**listed, "details": _details(service)}]})


async def ps(request: web.Request) -> web.Response:
    """The model that runs is the one there is."""
    service = request.app[SERVICE]
    listed = await asyncio.to_thread(_listed, service)
    running = {
        **{field: listed[field] for field in ("name", "model", "size", "digest")},
        "details": _details(service),
        "expires_at": NEVER,
        "size_vram": sum(service.engine.info.memory.values()),
        "context_length": service.engine.info.context_length,
    }
    return json_response({"models": [running]})


async def show(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = await read_body(request, ShowRequest)
    check_model(service, body.model or body.name or "")
    info, formats = service.engine.info, service.engine.formats
    listed = await asyncio.to_thread(_listed, service)
    can = {"tools": formats.tools, "thinking": formats.reasoning}
    return json_response(
        {
            "modelfile": f"FROM {info.path}\n",
            "parameters": "\n".join(f"{k} {v}" for k, v in info.default_sampling.items()),
            "template": service.engine.tokenizer.chat_template.source,
            "details": _details(service),
            "model_info": {
                "general.architecture": info.architecture,
                f"{info.architecture}.context_length": info.context_length,
                f"{info.architecture}.vocab_size": info.vocab_size,
            },
            "capabilities": ["completion", *(name for name, format in can.items() if format)],
            "modified_at": listed["modified_at"],
        }
    )


def _listed(service: Service) -> dict[str, Any]:
    """Reads the model's folder. digest: of the names, sizes and times of its files."""
    files = sorted(path for path in Path(service.engine.info.path).glob("*") if path.is_file())
    stats = [(path.name, path.stat()) for path in files]
    told = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    modified = max((stat.st_mtime for _, stat in stats), default=service.created)
    return {
        "name": service.model,
        "model": service.model,
        "modified_at": timestamp(datetime.fromtimestamp(modified, UTC)),
        "size": sum(stat.st_size for _, stat in stats),
        "digest": hashlib.sha256(told.encode()).hexdigest(),
    }


def _details(service: Service) -> dict[str, Any]:
    info = service.engine.info
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": info.architecture,
        "families": [info.architecture],
        "parameter_size": "",
        "quantization_level": info.dtype,
    }
