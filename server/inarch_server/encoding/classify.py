"""POST /v1/classify: how likely each label of a classifier applies to a text."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from aiohttp import web

from inarch.engine.vectors import check_classifier, probabilities, vector
from inarch_server.encoding.protocol import ClassifyRequest
from inarch_server.encoding.running import new_id, run_texts
from inarch_server.http.body import read_body
from inarch_server.http.encoding import json_response
from inarch_server.service import SERVICE


async def classify(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = await read_body(request, ClassifyRequest)
    service.check_model(body.model)
    info = service.engine.info
    check_classifier(info)
    ran = await run_texts(
        request,
        body.input,
        "input",
        body.terms(service.config),
        name=new_id("classify", body.rid),
        most=body.most(info.max_request_tokens),
    )
    found = [probabilities(vector(piece, info.head), info.head) for piece in ran.pieces]
    data = [_worded(i, probs, info.head.labels) for i, probs in enumerate(found)]
    head = {"id": ran.id, "object": "list", "created": int(time.time()), "model": service.model}
    return json_response({**head, "data": data, "usage": ran.usage()})


def _worded(index: int, probs: np.ndarray, labels: tuple[str, ...]) -> dict[str, Any]:
    """Of a model that classifies each token, labels and probabilities are lists of them."""
    best = probs.argmax(-1)
    label = labels[best] if probs.ndim == 1 else [labels[i] for i in best]
    return {"index": index, "label": label, "probs": probs.tolist(), "num_classes": len(labels)}
