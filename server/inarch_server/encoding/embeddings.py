"""POST /v1/embeddings: OpenAI's request for the vectors of texts."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from aiohttp import web

from inarch.engine.vectors import check_dimensions, check_embeds, prompt_text, vector
from inarch_server.encoding.protocol import EmbeddingRequest
from inarch_server.encoding.running import new_id, run_texts
from inarch_server.http.body import read_body
from inarch_server.http.encoding import json_response
from inarch_server.service import SERVICE


async def embeddings(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = await read_body(request, EmbeddingRequest)
    service.check_model(body.model)
    info = service.engine.info
    check_embeds(info)
    check_dimensions(body.dimensions, info.head)
    ran = await run_texts(
        request,
        body.input,
        "input",
        body.terms(service.config),
        name=new_id("embd", body.rid),
        before=prompt_text(info.head, body.prompt_name),
        most=body.most(info.max_request_tokens),
    )
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _worded(vector(piece, info.head, body.dimensions), body.encoding_format),
        }
        for index, piece in enumerate(ran.pieces)
    ]
    usage = {"prompt_tokens": ran.prompt_tokens, "total_tokens": ran.prompt_tokens}
    return json_response({"object": "list", "data": data, "model": service.model, "usage": usage})


def _worded(found: np.ndarray, form: str | None) -> Any:
    """Base64: of the float32 numbers, little endian, in rows."""
    if form == "base64":
        return base64.b64encode(found.astype("<f4").tobytes()).decode()
    return found.tolist()
