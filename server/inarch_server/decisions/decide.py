"""POST /v1/decisions: questions about an input, answered with the model's own probabilities.

Nothing is generated. Each question becomes a prompt whose answer is one of a few texts, and the
probabilities are those with which an answer held to these texts would come out. Models that reason
answer without reasoning.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inarch.engine.vectors import check_generates
from inarch.errors import InvalidRequestError
from inarch.sampling import Terms
from inarch_server.answering.conversation import Conversation
from inarch_server.answering.prompts import Prompt, tokenize
from inarch_server.answering.template import render
from inarch_server.decisions.likelihood import Branching, Tokens, branchings, likelihoods
from inarch_server.decisions.protocol import (
    AnyQuestion,
    ChoiceQuestion,
    DecisionRequest,
    Predicate,
    Score,
)
from inarch_server.http.body import read_body
from inarch_server.http.encoding import json_response
from inarch_server.openai.responses.items import Messages, to_messages
from inarch_server.service import SERVICE, Service

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.answering.answers import Piece

YES, NO = "Yes", "No"
Usage = dict[str, int]


@dataclass(frozen=True)
class Asked:
    """A question, ready for the engine."""

    question: AnyQuestion
    prompt: Sequence[int]
    answers: list[Tokens]
    branchings: list[Branching]


async def decisions(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = await read_body(request, DecisionRequest)
    service.check_model(body.model)
    check_generates(service.engine.info)
    messages = to_messages(body.input)
    asked = await _ask(service.engine, messages, body.questions)
    shares, usage = await _shares(request, service, asked, body.terms(service.config))
    answers = [
        {**_answer(one.question, likelihoods(one.answers, found)), "name": one.question.name}
        for one, found in zip(asked, shares, strict=True)
    ]
    return json_response({"answers": answers, "model": service.model, "usage": usage})


async def _ask(
    engine: AsyncEngine, messages: Messages, questions: Sequence[AnyQuestion]
) -> list[Asked]:
    def work() -> dict[str, str | list[Any]]:
        return {
            f"questions[{number}]": _prompt(engine, messages, question)
            for number, question in enumerate(questions)
        }

    prompts = await tokenize(engine, await asyncio.to_thread(work), special=False)
    asked = []
    for question, prompt in zip(questions, prompts, strict=True):
        texts = _texts(question)
        answers = [tuple(engine.tokenizer.encode(t, add_special_tokens=False)) for t in texts]
        asked.append(Asked(question, prompt.ids, answers, branchings(answers)))
    return asked


def _prompt(engine: AsyncEngine, messages: Messages, question: AnyQuestion) -> str:
    return _without_reasoning(engine, render(engine, _conversation(messages, question)))


def _conversation(messages: Messages, question: AnyQuestion) -> Conversation:
    text = _words(question)
    *before, last = messages or [{"role": "user", "content": ""}]
    if last["role"] == "user":  # many templates want roles to alternate
        messages = [*before, {"role": "user", "content": f"{last['content']}\n\n{text}".strip()}]
    else:
        messages = [*messages, {"role": "user", "content": text}]
    switched_off = {"enable_thinking": False, "thinking": False}
    return Conversation(messages=messages, variables=switched_off, called={"messages": "input"})


def _without_reasoning(engine: AsyncEngine, prompt: str) -> str:
    """The same prompt with its reasoning closed, where the template did not close it itself."""
    reasoning, end = engine.formats.reasoning, prompt.rstrip()
    if reasoning is None or end.endswith(reasoning.end):
        return prompt
    if not reasoning.begin:
        return prompt + reasoning.end
    begin = "" if end.endswith(reasoning.begin) else reasoning.begin
    return f"{prompt}{begin}\n\n{reasoning.end}\n\n"


def _words(question: AnyQuestion) -> str:
    match question:
        case Predicate():
            return (
                f"Statement: {question.instructions}\n"
                f"Is this statement true? Answer with {YES} or {NO} alone."
            )
        case ChoiceQuestion():
            options = [choice.description for choice in question.choices]
            which = "Answer with one of these alone:"
        case Score():
            options = [level.description for level in question.levels]
            which = "Answer with one of these levels alone, the lowest comes first:"
    listed = [
        f"- {text}: {description}" if description else f"- {text}"
        for text, description in zip(_texts(question), options, strict=True)
    ]
    return "\n".join([question.instructions, which, *listed])


def _texts(question: AnyQuestion) -> list[str]:
    """What the model may answer, each different."""
    match question:
        case Predicate():
            return [YES, NO]
        case Score():
            return [level.label for level in question.levels]
        case ChoiceQuestion():
            values = [choice.value for choice in question.choices]
            plain = [value if isinstance(value, str) else json.dumps(value) for value in values]
            # True and "true" differ as JSON alone.
            return plain if len(set(plain)) == len(plain) else [json.dumps(v) for v in values]


async def _shares(
    request: web.Request, service: Service, asked: Sequence[Asked], terms: Terms
) -> tuple[list[dict[Tokens, dict[int, float]]], dict[str, Any]]:
    """At each branching of each question the shares of its branches, and what it cost."""
    places = [(number, place) for number, one in enumerate(asked) for place in one.branchings]
    shares: list[dict[Tokens, dict[int, float]]] = [{} for _ in asked]
    usage = {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0}
    # The first one alone: the others find in the cache what all of them share, the input.
    for group in filter(None, (places[:1], places[1:])):
        for (number, place), piece in zip(
            group, await _run(request, service, asked, group, usage, terms), strict=True
        ):
            shares[number][place.prefix] = place.shares(piece.logprobs[0].wanted)
    return shares, _worded_usage(usage)


async def _run(
    request: web.Request,
    service: Service,
    asked: Sequence[Asked],
    places: Sequence[tuple[int, Branching]],
    usage: Usage,
    terms: Terms,
) -> list[Piece]:
    prompts = [Prompt([*asked[number].prompt, *place.prefix]) for number, place in places]
    eos = service.engine.tokenizer.eos_token_ids
    params = [place.params(eos) for _, place in places]
    name = uuid.uuid4().hex
    ids = [f"decision-{name}-{i}" for i in range(len(prompts))]
    with service.answer(request, ids, prompts, params, terms) as answers:
        pieces = await answers.all()
        cost = answers.usage()
    if any(piece.finish_reason == "abort" for piece in pieces):
        raise InvalidRequestError("the decision was aborted", status=503, code="aborted")
    usage["input_tokens"] += cost["prompt_tokens"]
    usage["output_tokens"] += cost["completion_tokens"]
    usage["cached_tokens"] += cost["prompt_tokens_details"]["cached_tokens"]
    return pieces


def _worded_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {"cached_tokens": usage["cached_tokens"], "cache_write_tokens": 0},
        "output_tokens": usage["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["input_tokens"] + usage["output_tokens"],
    }


def _answer(question: AnyQuestion, found: Sequence[float]) -> dict[str, Any]:
    best = max(range(len(found)), key=found.__getitem__)
    match question:
        case Predicate():
            return {"type": "predicate", "probability": found[0]}
        case ChoiceQuestion():
            values = [choice.value for choice in question.choices]
            listed = [
                {"value": value, "probability": p} for value, p in zip(values, found, strict=True)
            ]
            return {
                "type": "choice",
                "choice": values[best],
                "confidence": found[best],
                "probabilities": listed,
            }
        case Score():
            labels = [level.label for level in question.levels]
            return {
                "type": "score",
                "score": sum(value * p for value, p in enumerate(found)),
                "confidence": found[best],
                "probabilities": [
                    {"label": label, "value": value, "probability": p}
                    for value, (label, p) in enumerate(zip(labels, found, strict=True))
                ],
            }
