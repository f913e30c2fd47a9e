"""POST /v1/rerank and /v1/score: how well texts answer others, and how likely tokens come next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiohttp import web

from inarch.engine.encoding import Asked, Asking, T, paired
from inarch.errors import InvalidRequestError
from inarch.sampling import Terms
from inarch_server.answering.prompts import Prompt
from inarch_server.encoding.protocol import MOST_TEXTS, RerankRequest, ScoreRequest
from inarch_server.encoding.running import Ran, new_id, run
from inarch_server.http.body import read_body
from inarch_server.http.encoding import json_response
from inarch_server.service import SERVICE, Service


async def rerank(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = await read_body(request, RerankRequest)
    service.check_model(body.model)
    asking = Asking(service.engine.tokenizer, service.engine.info)
    most = body.most(service.engine.info.max_request_tokens)
    ranked, ran = await _ask(
        request,
        lambda: asking.ranking(body.query, body.texts, body.instruct, most),
        body.terms(service.config),
        new_id("rerank", body.rid),
    )
    results = [
        {"index": one.index, "relevance_score": one.score, "document": {"text": one.document}}
        for one in ranked[: body.top_n]
    ]
    if body.return_documents is False:
        for result in results:
            del result["document"]
    return json_response(
        {"id": ran.id, "model": service.model, "results": results, "usage": ran.usage()}
    )


async def score(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = await read_body(request, ScoreRequest)
    service.check_model(body.model)
    if body.text_1 is None or body.text_2 is None:
        return await _score_labels(request, service, body)
    pairs = paired(body.text_1, body.text_2)
    _check_count(len(pairs), "text_2")
    asking = Asking(service.engine.tokenizer, service.engine.info)
    most = body.most(service.engine.info.max_request_tokens)
    scores, ran = await _ask(
        request,
        lambda: asking.pairs(pairs, most=most),
        body.terms(service.config),
        new_id("score", body.rid),
    )
    data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(scores)]
    head = {"id": ran.id, "object": "list", "created": int(time.time()), "model": service.model}
    return json_response({**head, "data": data, "usage": ran.usage()})


async def _score_labels(request: web.Request, service: Service, body: ScoreRequest) -> web.Response:
    """SGLang's: one list of shares for each item, in the order of label_token_ids."""
    assert body.query is not None
    assert body.items is not None
    assert body.label_token_ids is not None
    query, labels = body.query, body.label_token_ids
    items = [body.items] if isinstance(body.items, str) else body.items
    _check_count(len(items), "items")
    asking = Asking(service.engine.tokenizer, service.engine.info)
    softmax, item_first = bool(body.apply_softmax), bool(body.item_first)
    scores, ran = await _ask(
        request,
        lambda: asking.labels(query, items, labels, softmax=softmax, item_first=item_first),
        body.terms(service.config),
        new_id("score", body.rid),
    )
    return json_response(
        {"scores": scores, "object": "scoring", "model": service.model, "usage": ran.usage()}
    )


async def _ask(
    request: web.Request, ask: Callable[[], Asked[T]], terms: Terms, name: str
) -> tuple[list[T], Ran]:
    """What `ask` asks for, made in a thread, and what it cost."""
    asked = await asyncio.to_thread(ask)
    longest = max(map(len, asked.prompts))
    room = request.app[SERVICE].engine.info.max_request_tokens
    if longest > room - (not asked.params[0].encode):
        raise InvalidRequestError(
            f"one of the prompts that are made of the texts has {longest} tokens, but {room} is the"
            " limit of this server; shorten it, or send truncate_prompt_tokens: -1",
            param="documents",
            code="context_length_exceeded",
        )
    prompts = [Prompt(ids) for ids in asked.prompts]
    ran = await run(request, prompts, asked.params, terms, name=name)
    return asked.judge(ran.pieces), ran


def _check_count(count: int, param: str) -> None:
    if not 1 <= count <= MOST_TEXTS:
        raise InvalidRequestError(
            f"{param} has {count} texts; one request takes 1 to {MOST_TEXTS}", param=param
        )
