"""POST /encode and /classify: SGLang's native requests for embeddings and for raw scores."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from inarch.engine.messages import HeadInfo
from inarch.engine.vectors import check_classifier, check_dimensions, vector
from inarch_server.encoding.protocol import EncodeRequest
from inarch_server.encoding.running import new_id, run_texts
from inarch_server.http.body import read_body
from inarch_server.http.encoding import json_response
from inarch_server.service import SERVICE, Service


async def encode(request: web.Request) -> web.Response:
    return await _encode(request, request.app[SERVICE])


async def classify(request: web.Request) -> web.Response:
    """As /encode, of a model that scores labels: a reward model, for one."""
    service = request.app[SERVICE]
    check_classifier(service.engine.info)
    return await _encode(request, service)


async def _encode(request: web.Request, service: Service) -> web.Response:
    body = await read_body(request, EncodeRequest)
    head = service.engine.info.head
    check_dimensions(body.dimensions, head)
    param = "text" if body.text is not None else "input_ids"
    given = getattr(body, param)
    terms, name = body.terms(service.config), new_id("encode", body.rid)
    ran = await run_texts(request, given, param, terms, name=name)
    found = [_worded(piece, f"{name}-{i}", head, body) for i, piece in enumerate(ran.pieces)]
    many = isinstance(given, list) and isinstance(given[0], str | list)
    return json_response(found if many else found[0])


def _worded(piece: Any, name: str, head: HeadInfo, body: EncodeRequest) -> dict[str, Any]:
    return {
        "embedding": vector(piece, head, body.dimensions).tolist(),
        "meta_info": {
            "id": name,
            "finish_reason": {"type": "stop"},
            "prompt_tokens": piece.prompt_tokens,
            "cached_tokens": piece.cached_tokens,
        },
    }
