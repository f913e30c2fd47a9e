"""POST /v1/chat/completions: from messages to an answer, whole or streamed, in OpenAI's shape."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inarch.sampling import SamplingParams
from inarch_server.answering import logprobs, sse
from inarch_server.answering.answers import Piece
from inarch_server.answering.conversation import Conversation, prepare
from inarch_server.answering.reading import Message, Reader
from inarch_server.answering.response_format import hold_to
from inarch_server.answering.sampling import sampling_params
from inarch_server.http.body import read_body
from inarch_server.http.encoding import json_response
from inarch_server.openai.chat_events import ChatEvents
from inarch_server.openai.chat_protocol import ChatRequest
from inarch_server.openai.envelope import Envelope
from inarch_server.service import SERVICE, Service

if TYPE_CHECKING:
    from inarch.engine.text.tokenizer import Tokenizer

CALLED = {"choice": "tool_choice", "answer": "response_format", "effort": "reasoning_effort"}


async def chat_completions(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await read_body(request, ChatRequest)
    service.check_model(body.model)
    turn = await prepare(service, conversation(body), _params(service, body))
    envelope = Envelope(body.rid or f"chatcmpl-{uuid.uuid4().hex}", service.model)
    terms = body.terms(service.config)
    with service.answer(request, [envelope.id], [turn.prompt], [turn.params], terms) as answers:
        reader = turn.reader(answers)
        if body.stream:
            events = ChatEvents(envelope, answers, body, reader, service.engine.tokenizer)
            return await sse.stream(request, answers, events)
        pieces = await answers.all()
        choices = [_choice(piece, body, reader, service.engine.tokenizer) for piece in pieces]
        return json_response(envelope.wrap("chat.completion", choices, usage=reader.usage()))


def conversation(body: ChatRequest) -> Conversation:
    tools, choice = body.calling()
    return Conversation(
        messages=[message.for_template() for message in body.messages],
        tools=tools,
        choice=choice,
        effort=body.reasoning_effort,
        separate_reasoning=body.separate_reasoning is not False,
        continue_final=bool(body.continue_final_message),
        variables=body.chat_template_kwargs or {},
        called=CALLED,
    )


def _params(service: Service, body: ChatRequest) -> SamplingParams:
    most = ("max_tokens", body.max_tokens)
    if body.max_completion_tokens is not None:
        most = ("max_completion_tokens", body.max_completion_tokens)
    top = (body.top_logprobs or 0) if body.logprobs else None
    said = sampling_params(service.engine, body, max_tokens=most, logprobs=("top_logprobs", top))
    return hold_to(said, body.response_format)


def _choice(
    piece: Piece, body: ChatRequest, reader: Reader, tokenizer: Tokenizer
) -> dict[str, Any]:
    said = reader.read(piece)
    return {
        "index": piece.index,
        "message": _worded(Message.of(said.deltas)),
        "logprobs": logprobs.chat(tokenizer, piece.logprobs) if body.logprobs else None,
        "finish_reason": said.finish_reason,
    }


def _worded(message: Message) -> dict[str, Any]:
    """`reasoning` is what newer clients read for `reasoning_content`."""
    worded: dict[str, Any] = {
        "role": "assistant",
        "content": None if message.calls and not message.content else message.content,
    }
    if message.reasoning:
        worded |= {"reasoning_content": message.reasoning, "reasoning": message.reasoning}
    if message.calls:
        worded["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    return worded
