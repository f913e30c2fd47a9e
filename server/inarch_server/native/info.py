"""What SGLang's clients ask of a server: what it runs, how it is configured, and how busy it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
from aiohttp import web

from inarch.version import __version__
from inarch_server.http.encoding import json_response
from inarch_server.service import SERVICE, Service

SECRET = ("api_key", "admin_api_key")


async def model_info(request: web.Request) -> web.Response:
    info = request.app[SERVICE].engine.info
    return json_response(
        {
            "model_path": info.path,
            "tokenizer_path": info.path,
            "served_model_name": info.name,
            "is_generation": info.head.generates,
            "preferred_sampling_params": info.default_sampling or None,
            "weight_version": "default",
            "model_type": info.architecture,
            "architectures": [info.architecture],
            "context_length": info.context_length,
            "vocab_size": info.vocab_size,
        }
    )


async def server_info(request: web.Request) -> web.Response:
    """The configuration without its secrets, what is known of the model, and what runs now."""
    service = request.app[SERVICE]
    config = dataclasses.asdict(service.config)
    shown = {name: value for name, value in config.items() if name not in SECRET}
    about = msgspec.to_builtins(service.engine.info)
    return json_response(
        {**shown, **about, "version": __version__, "internal_states": [await _load(service)]}
    )


async def loads(request: web.Request) -> web.Response:
    """How busy the engine is, as load balancers ask."""
    return json_response({"loads": [await _load(request.app[SERVICE])], "dp_rank_count": 1})


async def _load(service: Service) -> dict[str, Any]:
    stats = await service.engine.stats()
    used = stats.kv_pages_used * stats.page_tokens
    total = stats.kv_pages_total * stats.page_tokens
    return {
        "dp_rank": 0,
        "num_running_reqs": stats.running,
        "num_waiting_reqs": stats.waiting,
        "num_total_reqs": stats.running + stats.waiting,
        "num_used_tokens": used,
        "max_total_num_tokens": total,
        "token_usage": used / total if total else 0.0,
        "cached_tokens": stats.kv_pages_cached * stats.page_tokens,
        "max_running_requests": service.engine.info.max_running_requests,
        "num_retractions": stats.retractions,
        "paused": stats.paused,
    }
