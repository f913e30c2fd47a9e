"""POST /v1/rerank and /v1/score: how well texts answer others, and how likely tokens come next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from inarch.engine.encoding import Asked, ask_labels, ask_pairs, joined, paired
from inarch.errors import InvalidRequestError
from inarch.sampling import Terms, check_token_ids
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
    info, texts = service.engine.info, body.texts

    def ask() -> Asked:
        return ask_pairs(
            service.engine.tokenizer,
            info,
            paired(body.query, texts),
            instruction=body.instruct,
            search=True,
            most=body.most(info.max_request_tokens),
        )

    name = new_id("rerank", body.rid)
    scores, ran = await _ask(request, service, ask, body.terms(service.config), name)
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.top_n]
    results = [{"index": i, "relevance_score": scores[i]} for i in order]
    if body.return_documents is not False:
        results = [{**one, "document": {"text": texts[one["index"]]}} for one in results]
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
    info = service.engine.info

    def ask() -> Asked:
        most = body.most(info.max_request_tokens)
        return ask_pairs(service.engine.tokenizer, info, pairs, most=most)

    name = new_id("score", body.rid)
    scores, ran = await _ask(request, service, ask, body.terms(service.config), name)
    data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(scores)]
    head = {"id": ran.id, "object": "list", "created": int(time.time()), "model": service.model}
    return json_response({**head, "data": data, "usage": ran.usage()})


async def _score_labels(request: web.Request, service: Service, body: ScoreRequest) -> web.Response:
    """SGLang's: one list of shares for each item, in the order of label_token_ids."""
    assert body.query is not None
    assert body.items is not None
    assert body.label_token_ids is not None
    query, labels, info = body.query, body.label_token_ids, service.engine.info
    check_token_ids(labels, info.vocab_size, param="label_token_ids")
    items = [body.items] if isinstance(body.items, str) else body.items
    _check_count(len(items), "items")

    def ask() -> Asked:
        prompts = joined(service.engine.tokenizer, query, items, item_first=bool(body.item_first))
        for prompt in prompts:
            check_token_ids(prompt, info.vocab_size, param="items")
        return ask_labels(prompts, labels, list, softmax=bool(body.apply_softmax))

    name = new_id("score", body.rid)
    scores, ran = await _ask(request, service, ask, body.terms(service.config), name)
    return json_response(
        {"scores": scores, "object": "scoring", "model": service.model, "usage": ran.usage()}
    )


async def _ask(
    request: web.Request, service: Service, ask: Callable[[], Asked], terms: Terms, name: str
) -> tuple[list[Any], Ran]:
    """The scores of what `ask` makes in a thread, and what they cost."""
    asked = await asyncio.to_thread(ask)
    longest = max(map(len, asked.prompts))
    room = service.engine.info.max_request_tokens
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
    if count > MOST_TEXTS:
        raise InvalidRequestError(
            f"{param} has {count} texts, more than the {MOST_TEXTS} of one request; send several",
            param=param,
        )
