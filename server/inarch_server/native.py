"""POST /generate: SGLang's native request and response."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams
from inarch_server import logprobs, sse
from inarch_server.answers import Answers, Piece
from inarch_server.body import read_body, validate
from inarch_server.native_protocol import GenerateRequest, NativeSampling
from inarch_server.openai_common import json_response
from inarch_server.prompts import split, tokenize
from inarch_server.sampling import sampling_params
from inarch_server.service import SERVICE, Service

if TYPE_CHECKING:
    from inarch.engine.tokenizer import Tokenizer

DEFAULT_MAX_NEW_TOKENS = 128


async def generate(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await read_body(request, GenerateRequest)
    param = "text" if body.text is not None else "input_ids"
    given = split(getattr(body, param), param)
    params, ids = _params(service, body, len(given)), _ids(body, len(given))
    prompts = await tokenize(service.engine, given)
    with service.answer(request, ids, prompts, params) as answers:
        results = Results(body, answers, service.engine.tokenizer)
        if body.stream:
            return await sse.stream(request, answers, results)
        whole = [results.add(piece) for piece in await answers.all()]
        return json_response(whole if results.are_many else whole[0])


def _params(service: Service, body: GenerateRequest, prompts: int) -> list[SamplingParams]:
    said = body.sampling_params
    if not isinstance(said, list):
        return [_one(service, body, {} if said is None else said, "sampling_params")] * prompts
    _check_count("sampling_params", len(said), prompts)
    return [_one(service, body, one, f"sampling_params[{i}]") for i, one in enumerate(said)]


def _one(service: Service, body: GenerateRequest, said: Any, under: str) -> SamplingParams:
    fields = validate(said, NativeSampling, under)
    most = DEFAULT_MAX_NEW_TOKENS if fields.max_tokens is None else fields.max_tokens
    logprobs = (body.top_logprobs_num or 0) if body.return_logprob else None
    return sampling_params(
        service.engine,
        fields,
        under=under,
        max_tokens=(f"{under}.max_new_tokens", most),
        logprobs=("top_logprobs_num", logprobs),
    )


def _ids(body: GenerateRequest, prompts: int) -> list[str]:
    if isinstance(body.rid, list):
        _check_count("rid", len(body.rid), prompts)
        return body.rid
    base = body.rid or uuid.uuid4().hex
    return [base] if prompts == 1 else [f"{base}-{i}" for i in range(prompts)]


def _check_count(param: str, count: int, prompts: int) -> None:
    if count != prompts:
        raise InvalidRequestError(
            f"{param} is a list of {count}, but there are {prompts} prompts", param=param
        )


class Results(sse.DataEvents):
    """The answers so far. Every event of a stream repeats all of its choice, as SGLang's do."""

    def __init__(self, body: GenerateRequest, answers: Answers, tokenizer: Tokenizer) -> None:
        self._body, self._answers, self._tokenizer = body, answers, tokenizer
        self._start = time.perf_counter()
        self._so_far: dict[int, dict[str, Any]] = {}
        self.are_many = body.is_batch or len(answers.prompts) > 1 or answers.params[0].n > 1

    def add(self, piece: Piece) -> dict[str, Any]:
        """The result of the piece's choice up to and with the piece."""
        result = self._so_far.setdefault(
            piece.index, {"text": "", "output_ids": [], "meta_info": self._begin(piece)}
        )
        result["text"] += piece.text
        result["output_ids"] += piece.token_ids
        meta = result["meta_info"]
        meta["completion_tokens"] = piece.completion_tokens
        meta["cached_tokens"] = piece.cached_tokens
        meta["finish_reason"] = _finish_reason(piece)
        meta["e2e_latency"] = time.perf_counter() - self._start
        if self._body.return_logprob:
            self._add_logprobs(meta, piece)
        return result

    def of(self, piece: Piece) -> bytes:
        result = self.add(piece)
        shown = {"index": piece.index, **result} if self.are_many else result
        return sse.event(sse.encode(shown))

    def _begin(self, piece: Piece) -> dict[str, Any]:
        prompt = self._answers.prompts[piece.prompt]
        return {"id": self._answers.ids[piece.prompt], "prompt_tokens": len(prompt.ids)}

    def _add_logprobs(self, meta: dict[str, Any], piece: Piece) -> None:
        with_text = bool(self._body.return_text_in_logprobs)
        chosen = [(entry.token_id, entry.logprob) for entry in piece.logprobs]
        new = logprobs.native(self._tokenizer, chosen, with_text)
        meta.setdefault("output_token_logprobs", []).extend(new)
        if self._body.top_logprobs_num:
            tops = [logprobs.native(self._tokenizer, e.top, with_text) for e in piece.logprobs]
            meta.setdefault("output_top_logprobs", []).extend(tops)


def _finish_reason(piece: Piece) -> dict[str, Any] | None:
    match piece.finish_reason:
        case None:
            return None
        case "stop":
            return {"type": "stop", "matched": piece.matched_stop}
        case "length":
            return {"type": "length", "length": piece.completion_tokens}
        case other:
            return {"type": other}
