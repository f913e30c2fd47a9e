"""POST /api/chat and /api/generate: Ollama's API, whole and streamed as lines of JSON."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch.parsing import Arguments, Call, Delta
from inarch.sampling import SamplingParams
from inarch_server.answering import logprobs, sse
from inarch_server.answering.answers import Answers, Piece
from inarch_server.answering.conversation import Conversation, Turn, prepare
from inarch_server.answering.prompts import tokenize
from inarch_server.answering.reading import Message, Reader, Reading, parsed_arguments
from inarch_server.answering.response_format import hold_grammar
from inarch_server.answering.sampling import sampling_params
from inarch_server.http.apis import ollama_error
from inarch_server.http.body import read_body
from inarch_server.http.encoding import encode, json_response
from inarch_server.ollama.protocol import (
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaRequest,
    to_messages,
)
from inarch_server.openai.chat_protocol import chosen
from inarch_server.service import SERVICE, Service

if TYPE_CHECKING:
    from inarch.engine.text.tokenizer import Tokenizer

LATEST = ":latest"
CALLED = {"choice": "tools", "effort": "think", "answer": "format"}

Worded = dict[str, Any]  # the part of a line that the two routes differ in


async def chat(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await read_body(request, OllamaChatRequest)
    check_model(service, body.model)
    if not body.messages:
        return _loaded(body, as_message(Message()))
    tools, choice = chosen([tool.function.tool() for tool in body.tools or ()], "auto", None, True)
    asked = Conversation(
        messages=to_messages(body.messages),
        tools=tools,
        choice=choice,
        effort=body.think,
        called=CALLED,
    )
    turn = await prepare(service, asked, _params(service, body))
    return await _answer(request, body, turn, as_message)


async def generate(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await read_body(request, OllamaGenerateRequest)
    check_model(service, body.model)
    if not body.prompt:
        return _loaded(body, as_response(Message()))
    params = _params(service, body)
    if body.raw:
        (prompt,) = await tokenize(service.engine, {"prompt": body.prompt})
        return await _answer(request, body, Turn(prompt, params, Reading()), as_response)
    said = [("system", body.system), ("user", body.prompt)]
    messages = [{"role": role, "content": text} for role, text in said if text]
    called = {**CALLED, "messages": "prompt"}
    asked = Conversation(messages=messages, effort=body.think, called=called)
    return await _answer(request, body, await prepare(service, asked, params), as_response)


def check_model(service: Service, name: str) -> None:
    """Ollama's names end with a tag, which may be left out if it is "latest"."""
    service.check_model(name if name == service.model else name.removesuffix(LATEST))


def _params(service: Service, body: OllamaRequest) -> SamplingParams:
    wanted, most = body.options.num_ctx, service.engine.info.context_length
    if wanted is not None and wanted > most:
        raise InvalidRequestError(
            f"options.num_ctx is {wanted}, and this model is served with a context of {most} tokens:"
            " send no more, or leave it out",
            param="options.num_ctx",
        )
    top = (body.top_logprobs or 0) if body.logprobs else None
    said = sampling_params(
        service.engine, body.options, under="options", logprobs=("top_logprobs", top)
    )
    return hold_grammar(said, body.grammar(), "format")


def as_message(said: Message) -> Worded:
    """As /api/chat has it."""
    message: Worded = {"role": "assistant", "content": said.content}
    if said.reasoning:
        message["thinking"] = said.reasoning
    if said.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "function": {"name": call.name, "arguments": parsed_arguments(call.arguments)},
            }
            for call in said.calls
        ]
    return {"message": message}


def as_response(said: Message) -> Worded:
    """As /api/generate has it, which knows no tools."""
    worded = {"response": said.content}
    return {**worded, "thinking": said.reasoning} if said.reasoning else worded


async def _answer(
    request: web.Request, body: OllamaRequest, turn: Turn, word: Callable[[Message], Worded]
) -> web.StreamResponse:
    service = request.app[SERVICE]
    name, terms = uuid.uuid4().hex, body.terms(service.config)
    with service.answer(request, [name], [turn.prompt], [turn.params], terms) as answers:
        lines = Lines(body, answers, turn.reader(answers), service.engine.tokenizer, word)
        if body.streams:
            return await sse.stream(request, answers, lines)
        (piece,) = await answers.all()
        return json_response({**lines.line(piece), **lines.last()})


def _loaded(body: OllamaRequest, worded: Worded) -> web.Response:
    """Nothing was said: Ollama takes it for the wish to load the model, or to unload it."""
    reason = "unload" if body.keep_alive in (0, "0") else "load"
    return json_response({**_head(body.model), **worded, "done": True, "done_reason": reason})


def _head(model: str) -> dict[str, Any]:
    return {"model": model, "created_at": timestamp(datetime.now(UTC))}


def timestamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


class Lines:
    """One answer as lines of JSON; a call is told once it is complete."""

    def __init__(
        self,
        body: OllamaRequest,
        answers: Answers,
        reader: Reader,
        tokenizer: Tokenizer,
        word: Callable[[Message], Worded],
    ) -> None:
        self._body, self._answers, self._reader = body, answers, reader
        self._tokenizer, self._word = tokenizer, word
        self._call: list[Delta] = []  # that is being written
        self._reason = "stop"

    def line(self, piece: Piece) -> dict[str, Any]:
        said = self._reader.read(piece)
        message = Message.of(self._complete(said.deltas, said.finish_reason is not None))
        line = {**_head(self._body.model), **self._word(message), "done": False}
        if self._body.logprobs:
            line["logprobs"] = logprobs.chat(self._tokenizer, piece.logprobs)["content"]
        if said.finish_reason is not None and said.finish_reason != "tool_calls":
            self._reason = said.finish_reason
        return line

    def last(self) -> dict[str, Any]:
        """The fields of the end. Durations are nanoseconds; the model was there before."""
        usage, watch, now = self._answers.usage(), self._answers.stopwatch, time.perf_counter()
        first = watch.first_token_s if watch.first_token_s is not None else now
        return {
            "done": True,
            "done_reason": self._reason,
            "total_duration": _ns(now - watch.received_s),
            "load_duration": 0,
            "prompt_eval_count": usage["prompt_tokens"],
            "prompt_eval_duration": _ns(first - watch.received_s),
            "eval_count": usage["completion_tokens"],
            "eval_duration": _ns(now - first),
        }

    def begin(self) -> bytes:
        return b""

    def of(self, piece: Piece) -> bytes:
        return _encoded(self.line(piece))

    def end(self) -> bytes:
        return _encoded({**_head(self._body.model), **self._word(Message()), **self.last()})

    def error(self, body: dict[str, Any]) -> bytes:
        return _encoded(ollama_error(body["error"]))

    def _complete(self, deltas: Sequence[Delta], over: bool) -> list[Delta]:
        """Without the call that is still being written."""
        ready: list[Delta] = []
        for delta in deltas:
            if not isinstance(delta, Arguments):
                ready += self._call
                self._call = []
            (self._call if isinstance(delta, Call | Arguments) else ready).append(delta)
        if over:
            ready += self._call
            self._call = []
        return ready


def _encoded(line: dict[str, Any]) -> bytes:
    return encode(line) + b"\n"


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
