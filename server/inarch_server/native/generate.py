"""POST /generate: SGLang's native request and response."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams
from inarch_server.answering import sse
from inarch_server.answering.prompts import Prompt, split, tokenize
from inarch_server.answering.sampling import sampling_params
from inarch_server.http.body import read_body, validate
from inarch_server.http.encoding import json_response
from inarch_server.native.protocol import Asked, GenerateRequest, NativeSampling, check_count
from inarch_server.native.results import Results
from inarch_server.native.sessions import SESSIONS
from inarch_server.service import SERVICE, Service

DEFAULT_MAX_NEW_TOKENS = 128


async def generate(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await read_body(request, GenerateRequest)
    param = "text" if body.text is not None else "input_ids"
    given = split(getattr(body, param), param)
    asked = body.logprobs(len(given))
    params, ids = _params(service, body, asked), _ids(body, len(given))
    terms, session = body.terms(service.config), body.session_params
    goes_on = session is not None and request.app[SESSIONS].goes_on(session)
    prompts = await tokenize(service.engine, given, special=not goes_on)
    turn = None
    if session is not None:
        _check_session(params)
        turn = request.app[SESSIONS].turn(session, ids[0], prompts[0].ids)
        prompts = [Prompt(turn.prompt)]
    answering = service.answer(request, ids, prompts, params, terms)
    with turn or nullcontext(), answering as answers:
        _check_starts(asked, prompts)
        results = Results(
            answers, asked, service.engine.tokenizer, turn,
            listed=body.is_batch, with_text=bool(body.return_text_in_logprobs),
        )  # fmt: skip
        if body.stream:
            return await sse.stream(request, answers, results)
        whole = [results.add(piece) for piece in await answers.all()]
        return json_response(whole if results.are_many else whole[0])


def _check_session(params: Sequence[SamplingParams]) -> None:
    if params[0].n > 1:
        raise InvalidRequestError(
            f"a session goes on with one answer: n must be 1, got {params[0].n}",
            param="sampling_params.n",
        )


def _params(
    service: Service, body: GenerateRequest, asked: Sequence[Asked | None]
) -> list[SamplingParams]:
    said = body.sampling_params
    if not isinstance(said, list):
        under, said = ["sampling_params"] * len(asked), [{} if said is None else said] * len(asked)
    else:
        check_count("sampling_params", said, len(asked))
        under = [f"sampling_params[{i}]" for i in range(len(said))]
    known: dict[tuple[str, Asked | None], SamplingParams] = {}  # most have all in common
    for one, path, ask in zip(said, under, asked, strict=True):
        if (path, ask) not in known:
            known[path, ask] = _one(service, one, path, ask)
    return [known[key] for key in zip(under, asked, strict=True)]


def _one(service: Service, said: Any, under: str, asked: Asked | None) -> SamplingParams:
    fields = validate(said, NativeSampling, under)
    most = DEFAULT_MAX_NEW_TOKENS if fields.max_tokens is None else fields.max_tokens
    worked_out: dict[str, tuple[str, Any]] = {"max_tokens": (f"{under}.max_new_tokens", most)}
    if asked is not None:
        worked_out["logprobs"] = ("top_logprobs_num", asked.top)
        worked_out["logprob_token_ids"] = ("token_ids_logprob", asked.token_ids)
    if asked is not None and asked.of_prompt:
        # The first token that is asked about is shown without a log-probability.
        worked_out["prompt_logprobs"] = ("top_logprobs_num", asked.top)
        worked_out["logprob_start"] = ("logprob_start_len", asked.start + 1)
    return sampling_params(service.engine, fields, under=under, **worked_out)


def _check_starts(asked: Sequence[Asked | None], prompts: Sequence[Prompt]) -> None:
    for ask, prompt in zip(asked, prompts, strict=True):
        if ask is not None and ask.start >= len(prompt.ids):
            raise InvalidRequestError(
                f"logprob_start_len ({ask.start}) is beyond the prompt, which has"
                f" {len(prompt.ids)} tokens",
                param="logprob_start_len",
            )


def _ids(body: GenerateRequest, prompts: int) -> list[str]:
    if isinstance(body.rid, list):
        check_count("rid", body.rid, prompts)
        return body.rid
    base = body.rid or uuid.uuid4().hex
    return [base] if prompts == 1 else [f"{base}-{i}" for i in range(prompts)]
