"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's API, whole and streamed."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams
from inarch_server.answering import sse
from inarch_server.answering.answers import Piece
from inarch_server.answering.conversation import Conversation, prepare, write
from inarch_server.answering.reading import Reader
from inarch_server.answering.response_format import hold_grammar
from inarch_server.answering.sampling import sampling_params
from inarch_server.answering.template import NO_EFFORT, ON
from inarch_server.anthropic.output import Blocks, Event
from inarch_server.anthropic.protocol import CountTokensRequest, MessagesRequest
from inarch_server.anthropic.turns import Messages, to_messages
from inarch_server.http.apis import anthropic_error
from inarch_server.http.body import read_body
from inarch_server.http.encoding import encode, json_response
from inarch_server.service import SERVICE, Service

PREFILL = "a last message of the assistant, which the answer goes on from,"


async def messages(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await read_body(request, MessagesRequest)
    service.check_model(body.model)
    turn = await prepare(service, _conversation(service, body), _params(service, body))
    terms = body.terms(service.config)
    name = f"msg_{uuid.uuid4().hex}"
    with service.answer(request, [name], [turn.prompt], [turn.params], terms) as answers:
        message = Message(name, service.model, body, turn.reader(answers))
        if body.stream:
            return await sse.stream(request, answers, MessageEvents(message))
        (piece,) = await answers.all()
        message.add(piece)
        message.end()
        return json_response(message.shown)


async def count_tokens(request: web.Request) -> web.Response:
    """Of the prompt that the same request to /v1/messages would have, however long it is."""
    service = request.app[SERVICE]
    body = await read_body(request, CountTokensRequest)
    service.check_model(body.model)
    grammar, _ = body.grammar()
    text, _ = await write(service.engine, _conversation(service, body), grammar)
    ids = await asyncio.to_thread(service.engine.tokenizer.encode, text, False)
    return json_response({"input_tokens": len(ids)})


def _conversation(service: Service, body: CountTokensRequest) -> Conversation:
    tools, choice = body.calling()
    messages = to_messages(body.system, body.messages)
    prefilled = messages[-1]["role"] == "assistant"
    if prefilled:
        _check_prefill(body, messages)
    return Conversation(
        messages=messages,
        tools=tools,
        choice=choice,
        effort=_effort(service, body),
        continue_final=prefilled,
        called={"choice": "tool_choice", "effort": body.effort_called, "answer": body.grammar()[1]},
    )


def _check_prefill(body: CountTokensRequest, messages: Messages) -> None:
    if len(messages) == 1:
        raise InvalidRequestError("messages must begin with one of the user", param="messages")
    if messages[-1].get("tool_calls"):
        raise InvalidRequestError(
            "the tool_use blocks of the last message have no results: send tool_result blocks in a"
            " message of the user",
            param="messages",
        )
    for field, given in (
        (body.grammar()[1], body.grammar()[0] is not None),
        ("thinking", bool(body.thinks)),
        ("tool_choice", body.tool_choice is not None and body.tool_choice.type in ("any", "tool")),
    ):
        if given:
            raise InvalidRequestError(
                f"{PREFILL} has begun it without what {field} asks for: leave one of them out",
                param=field,
            )


def _effort(service: Service, body: CountTokensRequest) -> str | None:
    """How much to reason. A model that cannot has chosen not to, where "adaptive" lets it choose."""
    if body.output_config is not None and body.output_config.effort is not None:
        return body.output_config.effort
    if body.thinking is None:
        return None
    match body.thinking.type:
        case "disabled":
            return NO_EFFORT
        case "adaptive" if service.engine.formats.reasoning is None:
            return None
        case _:
            return ON


def _params(service: Service, body: MessagesRequest) -> SamplingParams:
    stop = tuple(body.stop_sequences) if body.stop_sequences is not None else None
    said = sampling_params(service.engine, body, stop=("stop_sequences", stop))
    grammar, called = body.grammar()
    return hold_grammar(said, grammar, called)


class Message:
    """One answer on its way from pieces to a finished object."""

    def __init__(self, name: str, model: str, body: MessagesRequest, reader: Reader) -> None:
        omitted = body.thinking is not None and body.thinking.display == "omitted"
        self._reader, self._most = reader, body.max_tokens
        self._blocks = Blocks(show_thinking=not omitted)
        self._ending: dict[str, Any] = {"stop_reason": None, "stop_sequence": None}
        self.shown: dict[str, Any] = {
            "id": name,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            **self._ending,
        }

    def begin(self) -> Event:
        return {"type": "message_start", "message": {**self.shown, "usage": self._usage()}}

    def add(self, piece: Piece) -> list[Event]:
        said = self._reader.read(piece)
        if said.finish_reason is not None:
            self._ending = self._worded_ending(piece, said.finish_reason)
        return self._blocks.add(said.deltas)

    def end(self) -> list[Event]:
        events, usage = self._blocks.close(), self._usage()
        self.shown |= {"content": self._blocks.blocks, **self._ending, "usage": usage}
        delta: Event = {"type": "message_delta", "delta": self._ending, "usage": usage}
        return [*events, delta, {"type": "message_stop"}]

    def _worded_ending(self, piece: Piece, reason: str) -> dict[str, Any]:
        matched = piece.matched_stop if isinstance(piece.matched_stop, str) else None
        match reason:
            case "tool_calls":
                worded = "tool_use"
            case "length" if piece.completion_tokens < self._most:
                worded = "model_context_window_exceeded"
            case "length":
                worded = "max_tokens"
            case "abort":
                worded = "pause_turn"  # sent back as it is, the answer goes on
            case _:
                worded = "end_turn" if matched is None else "stop_sequence"
        return {"stop_reason": worded, "stop_sequence": matched}

    def _usage(self) -> dict[str, Any]:
        """Tokens so far; what the cache had does not count as input."""
        usage = self._reader.usage()
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return {
            "input_tokens": usage["prompt_tokens"] - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"thinking_tokens": self._reader.reasoning_tokens},
        }


class MessageEvents:
    """A message as it streams: events named by their type."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def begin(self) -> bytes:
        return _worded([self._message.begin(), {"type": "ping"}])

    def of(self, piece: Piece) -> bytes:
        return _worded(self._message.add(piece))

    def end(self) -> bytes:
        return _worded(self._message.end())

    def error(self, body: dict[str, Any]) -> bytes:
        return _worded([anthropic_error(body["error"])])


def _worded(events: list[Event]) -> bytes:
    return b"".join([sse.named_event(event["type"], encode(event)) for event in events])
