"""POST /v1/completions: one or many prompts, as text or token ids, continued as they are."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inarch.engine.outputs import TokenLogprob
from inarch_server.answering import logprobs, sse
from inarch_server.answering.answers import Answers, Piece
from inarch_server.answering.holding import checked
from inarch_server.answering.prompts import Prompt, split, tokenize
from inarch_server.answering.response_format import hold_to
from inarch_server.answering.sampling import sampling_params
from inarch_server.http.body import read_body
from inarch_server.http.encoding import json_response
from inarch_server.openai.best_of import best, enlarge
from inarch_server.openai.completions_protocol import CompletionRequest
from inarch_server.openai.envelope import Envelope, OpenAIEvents
from inarch_server.service import SERVICE

if TYPE_CHECKING:
    from inarch.engine.text.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16


async def completions(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await read_body(request, CompletionRequest)
    service.check_model(body.model)
    most = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    told = ("logprobs", body.logprobs)
    params = sampling_params(
        service.engine,
        body,
        max_tokens=("max_tokens", most),
        logprobs=told,
        prompt_logprobs=told if body.echo else ("logprobs", None),
    )
    params = hold_to(params, body.response_format)
    if params.grammar is not None:
        checked(service.engine, params.grammar, params.grammar.kind)
    best_of = body.best_of if body.best_of is not None else params.n
    n = params.n
    if best_of > n:
        params = enlarge(params, best_of)
    terms = body.terms(service.config)
    prompts = await tokenize(service.engine, split(body.prompt, "prompt"))
    envelope = Envelope(body.rid or f"cmpl-{uuid.uuid4().hex}", service.model)
    ids = [f"{envelope.id}-{i}" for i in range(len(prompts))]
    with service.answer(request, ids, prompts, [params] * len(prompts), terms) as answers:
        wording = Wording(body, answers.prompts, service.engine.tokenizer)
        if body.stream:
            events = CompletionEvents(envelope, answers, body, wording)
            return await sse.stream(request, answers, events)
        pieces = await answers.all()
        if best_of > n:
            pieces = best(pieces, n)
        choices = [wording.choice(piece) for piece in pieces]
        return json_response(envelope.wrap("text_completion", choices, usage=answers.usage()))


class Wording:
    """Turns pieces into choices: the first piece of a choice may echo the prompt."""

    def __init__(
        self, body: CompletionRequest, prompts: Sequence[Prompt], tokenizer: Tokenizer
    ) -> None:
        self._body, self._prompts, self._tokenizer = body, prompts, tokenizer
        self._offset: dict[int, int] = {}  # of the next token in the text, by choice

    def choice(self, piece: Piece) -> dict[str, Any]:
        text, entries = piece.text, piece.logprobs
        if self._body.echo and piece.index not in self._offset:
            prompt = self._prompts[piece.prompt]
            text = self._echo(prompt) + text
            # Nothing comes before the first token that could tell how likely it is.
            first = TokenLogprob(prompt.ids[0], math.nan)
            entries = [first, *piece.prompt_logprobs, *entries]
        offset = self._offset.setdefault(piece.index, 0)
        shape = None
        if self._body.logprobs is not None:
            shape, offset = logprobs.completion(self._tokenizer, entries, offset)
            self._offset[piece.index] = offset
        return {
            "index": piece.index,
            "text": text,
            "logprobs": shape,
            "finish_reason": piece.finish_reason,
        }

    def _echo(self, prompt: Prompt) -> str:
        return self._tokenizer.decode(prompt.ids) if prompt.text is None else prompt.text


class CompletionEvents(OpenAIEvents):
    kind = "text_completion"

    def __init__(
        self, envelope: Envelope, answers: Answers, body: CompletionRequest, wording: Wording
    ) -> None:
        super().__init__(envelope, answers, body.stream_options)
        self._wording = wording

    def choice(self, piece: Piece) -> dict[str, Any]:
        return self._wording.choice(piece)
