"""POST /v1/chat/completions: from messages to an answer, whole or streamed, in OpenAI's shape."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams
from inarch_server import logprobs, sse
from inarch_server.answers import Answers, Piece
from inarch_server.body import read_body
from inarch_server.openai_common import Envelope, OpenAIEvents, json_response
from inarch_server.prompts import INLINE_LENGTH, Prompt, tokenize
from inarch_server.protocol import ChatRequest
from inarch_server.sampling import sampling_params
from inarch_server.service import SERVICE, Service

if TYPE_CHECKING:
    from inarch.engine.tokenizer import Tokenizer


async def chat_completions(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await read_body(request, ChatRequest)
    service.check_model(body.model)
    prompt, params = await _prompt(service, body), _params(service, body)
    envelope = Envelope(f"chatcmpl-{uuid.uuid4().hex}", service.model)
    with service.answer(request, [envelope.id], [prompt], [params]) as answers:
        if body.stream:
            events = ChatEvents(envelope, answers, body, service.engine.tokenizer)
            return await sse.stream(request, answers, events)
        pieces = await answers.all()
        choices = [_choice(piece, body, service.engine.tokenizer) for piece in pieces]
        return json_response(envelope.wrap("chat.completion", choices, usage=answers.usage()))


def _params(service: Service, body: ChatRequest) -> SamplingParams:
    most = ("max_tokens", body.max_tokens)
    if body.max_completion_tokens is not None:
        most = ("max_completion_tokens", body.max_completion_tokens)
    top = (body.top_logprobs or 0) if body.logprobs else None
    return sampling_params(service.engine, body, max_tokens=most, logprobs=("top_logprobs", top))


async def _prompt(service: Service, body: ChatRequest) -> Prompt:
    if sum(len(message.content or "") for message in body.messages) <= INLINE_LENGTH:
        text = _render(service.engine.tokenizer, body)
    else:
        text = await asyncio.to_thread(_render, service.engine.tokenizer, body)
    # The template itself writes the tokens that begin a text.
    (prompt,) = await tokenize(service.engine, {"messages": text}, special=False)
    return prompt


def _render(tokenizer: Tokenizer, body: ChatRequest) -> str:
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    begun = _begun_answer(messages) if body.continue_final_message else ""
    try:
        return tokenizer.apply_chat_template(messages, **(body.chat_template_kwargs or {})) + begun
    except InvalidRequestError as error:
        raise InvalidRequestError(str(error), param="messages") from None


def _begun_answer(messages: list[dict[str, Any]]) -> str:
    """Take the last message away: its text is the beginning of the answer."""
    last = messages.pop()
    if last["role"] != "assistant" or not messages:
        raise InvalidRequestError(
            "continue_final_message needs an assistant message at the end, after another message",
            param="continue_final_message",
        )
    return str(last.get("content", ""))


def _choice(piece: Piece, body: ChatRequest, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "index": piece.index,
        "message": {"role": "assistant", "content": piece.text},
        "logprobs": _logprobs(piece, body, tokenizer),
        "finish_reason": piece.finish_reason,
    }


def _logprobs(piece: Piece, body: ChatRequest, tokenizer: Tokenizer) -> dict[str, Any] | None:
    return logprobs.chat(tokenizer, piece.logprobs) if body.logprobs else None


class ChatEvents(OpenAIEvents):
    """The first event of a choice names the role; the last one has its finish_reason."""

    kind = "chat.completion.chunk"

    def __init__(
        self, envelope: Envelope, answers: Answers, body: ChatRequest, tokenizer: Tokenizer
    ) -> None:
        super().__init__(envelope, answers, body.stream_options)
        self._body, self._tokenizer = body, tokenizer
        self._begun: set[int] = set()

    def choice(self, piece: Piece) -> dict[str, Any]:
        delta = {"content": piece.text}
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            delta = {"role": "assistant", **delta}
        return {
            "index": piece.index,
            "delta": delta,
            "logprobs": _logprobs(piece, self._body, self._tokenizer),
            "finish_reason": piece.finish_reason,
        }
