"""/v1/responses: OpenAI's newer API, whose answers are kept so that a conversation can go on."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams
from inarch_server.answering import logprobs, sse
from inarch_server.answering.answers import Piece
from inarch_server.answering.conversation import Conversation, Turn, prepare
from inarch_server.answering.reading import Reader
from inarch_server.answering.response_format import hold_grammar
from inarch_server.answering.sampling import sampling_params
from inarch_server.http.body import read_body
from inarch_server.http.encoding import encode, json_response
from inarch_server.openai.responses.items import (
    Item,
    Messages,
    given_items,
    output_to_messages,
    to_messages,
)
from inarch_server.openai.responses.output import Event, Output
from inarch_server.openai.responses.protocol import ResponsesRequest
from inarch_server.openai.responses.store import RESPONSES, ResponseStore
from inarch_server.service import SERVICE, Service

if TYPE_CHECKING:
    from inarch.engine.text.tokenizer import Tokenizer

CALLED = {
    "messages": "input",
    "choice": "tool_choice",
    "answer": "text.format",
    "effort": "reasoning.effort",
}
REASONS = {"length": "max_output_tokens"}  # why a response is incomplete


async def create(request: web.Request) -> web.StreamResponse:
    service, store = request.app[SERVICE], request.app[RESPONSES]
    body = await read_body(request, ResponsesRequest)
    service.check_model(body.model)
    messages = to_messages(body.input)
    if body.previous_response_id is not None:
        check_one_worker(service)
        before = store.get(body.previous_response_id, "previous_response_id")
        messages = [*before.messages, *messages]
    turn = await prepare(service, _conversation(body, messages), _params(service, body))
    _check_logprobs(body, turn)
    kept = None if body.store is False else store
    name = f"resp_{uuid.uuid4().hex}"
    terms = body.terms(service.config)
    with service.answer(request, [name], [turn.prompt], [turn.params], terms) as answers:
        skeleton = _skeleton(name, service.model, body, turn.params)
        response = Response(
            skeleton,
            messages,
            given_items(body.input),
            turn.reader(answers),
            service.engine.tokenizer,
            kept,
        )
        if body.stream:
            return await sse.stream(request, answers, ResponseEvents(response))
        (piece,) = await answers.all()
        response.add(piece)
        response.end()
        return json_response(response.shown)


async def retrieve(request: web.Request) -> web.Response:
    check_one_worker(request.app[SERVICE])
    return json_response(request.app[RESPONSES].get(request.match_info["id"]).response)


async def delete(request: web.Request) -> web.Response:
    check_one_worker(request.app[SERVICE])
    name = request.match_info["id"]
    request.app[RESPONSES].delete(name)
    return json_response({"id": name, "object": "response.deleted", "deleted": True})


async def cancel(request: web.Request) -> web.Response:
    request.app[RESPONSES].get(request.match_info["id"])
    raise InvalidRequestError(
        "only a response made with background: true can be cancelled, and this server makes none;"
        " closing the connection ends a response that is being made"
    )


def check_one_worker(service: Service) -> None:
    """Raise InvalidRequestError where a request may not reach who keeps the response."""
    workers = service.config.api_workers
    if workers > 1:
        raise InvalidRequestError(
            f"responses are kept in one front-end process, and this server has {workers}: a request"
            " would reach another one. Start it with --api-workers 1, or send the whole conversation"
            " as input: the prefix cache makes it as quick"
        )


def _conversation(body: ResponsesRequest, messages: Messages) -> Conversation:
    tools, choice = body.calling()
    if body.instructions:
        messages = [{"role": "developer", "content": body.instructions}, *messages]
    if not messages:
        raise InvalidRequestError("input must not be empty", param="input")
    return Conversation(
        messages=messages,
        tools=tools,
        choice=choice,
        effort=body.reasoning.effort if body.reasoning is not None else None,
        variables=body.chat_template_kwargs or {},
        called=CALLED,
    )


def _params(service: Service, body: ResponsesRequest) -> SamplingParams:
    top = (body.top_logprobs or 0) if body.wants_logprobs else None
    said = sampling_params(
        service.engine,
        body,
        max_tokens=("max_output_tokens", body.max_output_tokens),
        logprobs=("top_logprobs", top),
    )
    format = body.text.format if body.text is not None else None
    grammar = format.grammar() if format is not None else None
    return hold_grammar(said, grammar, "text.format")


def _check_logprobs(body: ResponsesRequest, turn: Turn) -> None:
    if body.wants_logprobs and turn.reading.parser is not None:
        raise InvalidRequestError(
            "log-probabilities of a response that may hold calls or reasoning are not told apart; send"
            " tool_choice none and a model without reasoning, or use /v1/chat/completions",
            param="top_logprobs",
        )


def _skeleton(
    name: str, model: str, body: ResponsesRequest, params: SamplingParams
) -> dict[str, Any]:
    """Everything of a response that is known before it begins."""
    echoed = body.model_dump(mode="json", by_alias=True, include=set(ECHOED))
    text = body.text.model_dump(by_alias=True, exclude_none=True) if body.text is not None else {}
    effort = body.reasoning.effort if body.reasoning is not None else None
    return {
        "id": name,
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "reasoning": {"effort": effort, "summary": None},
        "store": body.store is not False,
        "temperature": params.temperature,
        "text": {"format": {"type": "text"}, **text},
        "tool_choice": "auto",
        "tools": [],
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
        **{field: value for field, value in echoed.items() if value is not None or field in NULLS},
    }


NULLS = frozenset(
    {"instructions", "max_output_tokens", "previous_response_id", "top_logprobs", "user"}
)
ECHOED = NULLS | {"metadata", "tool_choice", "tools"}


class Response:
    """One response on its way from pieces to a finished object."""

    def __init__(
        self,
        skeleton: dict[str, Any],
        messages: Messages,
        given: list[Item],
        reader: Reader,
        tokenizer: Tokenizer,
        store: ResponseStore | None,
    ) -> None:
        self.shown = skeleton
        self._messages, self._given, self._store = messages, given, store
        self._reader, self._tokenizer = reader, tokenizer
        self._output = Output()
        self._finish: str | None = None

    def add(self, piece: Piece) -> list[Event]:
        said = self._reader.read(piece)
        self._finish = said.finish_reason
        told = logprobs.chat(self._tokenizer, piece.logprobs)["content"] if piece.logprobs else ()
        return self._output.add(said.deltas, told)

    def end(self) -> list[Event]:
        """Finish the object, and keep it."""
        reason = REASONS.get(self._finish or "")
        status = "incomplete" if reason else "completed"
        events = self._output.end(status)
        self.shown |= {"status": status, "output": self._output.items, "usage": self._usage()}
        if reason:
            self.shown["incomplete_details"] = {"reason": reason}
        else:
            self.shown["completed_at"] = int(time.time())
        if self._store is not None:
            said = output_to_messages(self._output.items)
            self._store.keep(self.shown, [*self._messages, *said], self._given)
        return [*events, {"type": f"response.{status}", "response": self.shown}]

    def fail(self, error: dict[str, Any]) -> list[Event]:
        self.shown |= {
            "status": "failed",
            "output": self._output.items,
            "error": {"code": "server_error", "message": error["message"]},
        }
        return [{"type": "response.failed", "response": self.shown}]

    def _usage(self) -> dict[str, Any]:
        usage = self._reader.usage()
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": usage["completion_tokens_details"],
            "total_tokens": usage["total_tokens"],
        }


class ResponseEvents:
    """A response as it streams: numbered events with names."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._number = 0

    def begin(self) -> bytes:
        kinds = ("response.created", "response.in_progress")
        return self._worded([{"type": k, "response": dict(self._response.shown)} for k in kinds])

    def of(self, piece: Piece) -> bytes:
        return self._worded(self._response.add(piece))

    def end(self) -> bytes:
        return self._worded(self._response.end())

    def error(self, body: dict[str, Any]) -> bytes:
        return self._worded(self._response.fail(body["error"]))

    def _worded(self, events: list[Event]) -> bytes:
        worded = []
        for event in events:
            data = encode({**event, "sequence_number": self._number})
            worded.append(sse.named_event(event["type"], data))
            self._number += 1
        return b"".join(worded)
