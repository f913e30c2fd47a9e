"""What lies between an API's words and the engine: a conversation in, deltas out.

Every API that talks in messages uses this, and none of them knows a tokenizer, a chat template, a
grammar or a parser. A handler does four things:

    asked = Conversation(messages=..., tools=..., choice=..., effort=..., ...)    # its own words
    params = hold_to(sampling_params(service.engine, body), response_format)
    turn = await prepare(service, asked, params)            # prompt, grammar, parser
    with service.answer(request, [id], [turn.prompt], [turn.params]) as answers:
        reader = turn.reader(answers)
        for piece in await answers.all():       # whole: one piece a choice
            said = reader.read(piece)           # deltas and finish reason
            message = Message.of(said.deltas)   # content, reasoning, calls
        usage = reader.usage()

A stream is the same without `Message`: `sse.stream` calls the API's own `Events.of(piece)`, which words
the deltas of `reader.read(piece)`, at its end `reader.usage()`. Where nothing is to be parsed
`reader.plain` is true, and the text of a piece is all there is: then `read` need not be called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from inarch.engine.vectors import check_generates
from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar
from inarch.parsing import Choice, Tool
from inarch.sampling import SamplingParams
from inarch_server.answering.holding import behind_reasoning, hold
from inarch_server.answering.prompts import INLINE_LENGTH, Prompt, tokenize
from inarch_server.answering.reading import Reader, Reading, make_reading
from inarch_server.answering.template import render

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.answering.answers import Answers
    from inarch_server.service import Service

AUTO = Choice()
PROMPT_END = 256  # characters of a prompt by which a format tells whether reasoning has begun


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What a client asks for, in the words of no API.

    messages: as OpenAI's chat API has them, their content as text. choice: None forbids calls.
    variables: for the chat template. called: what the client calls "messages", "tools", "choice",
    "effort" and "answer" (the response format), for refusals.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Tool] = ()
    choice: Choice | None = AUTO
    effort: str | None = None  # how much to reason: "none", "on", "low", "medium", "high" ...
    separate_reasoning: bool = True
    continue_final: bool = False  # the last message is the beginning of the answer
    variables: Mapping[str, Any] = field(default_factory=dict)
    called: Mapping[str, str] = field(default_factory=dict)

    @property
    def callable_tools(self) -> Sequence[Tool]:
        return self.tools if self.choice is not None else ()

    def name(self, part: str) -> str:
        return self.called.get(part, part)


@dataclass(frozen=True)
class Turn:
    """A conversation, ready for the engine."""

    prompt: Prompt
    params: SamplingParams
    reading: Reading

    def reader(self, answers: Answers) -> Reader:
        return Reader(self.reading, answers)


async def prepare(service: Service, asked: Conversation, params: SamplingParams) -> Turn:
    """Render, tokenize, and hold the answer to its grammar. Raises InvalidRequestError.

    `params.grammar`, from a response format or the like, is the language of an answer in which no
    tool is called.
    """
    engine = service.engine
    check_generates(engine.info)
    formats = engine.formats
    if not asked.separate_reasoning:
        formats = replace(formats, reasoning=None)
    text, grammar = await write(engine, asked, params.grammar)
    # The template itself writes the tokens that begin a text.
    (prompt,) = await tokenize(engine, {asked.name("messages"): text}, special=False)
    reading = make_reading(engine.tokenizer, formats, asked.callable_tools, text[-PROMPT_END:])
    params = msgspec.structs.replace(
        params,
        grammar=grammar,
        skip_special_tokens=params.skip_special_tokens and not reading.special,
    )
    return Turn(prompt, params, reading)


async def write(
    engine: AsyncEngine, asked: Conversation, answer: Grammar | None
) -> tuple[str, Grammar | None]:
    """The prompt, and the grammar of what follows it. `answer` is as in `hold`."""
    length = sum(len(message.get("content") or "") for message in asked.messages)
    if length <= INLINE_LENGTH:
        text = rendered(engine, asked)
    else:
        text = await asyncio.to_thread(rendered, engine, asked)
    grammar = hold(engine, asked, answer)
    if grammar is None:
        return text, None
    return behind_reasoning(engine, text, grammar, calls=bool(asked.callable_tools))


def rendered(engine: AsyncEngine, asked: Conversation) -> str:
    messages = list(asked.messages)
    begun = _begun_answer(messages) if asked.continue_final else ""
    return render(engine, replace(asked, messages=messages)) + begun


def _begun_answer(messages: list[Mapping[str, Any]]) -> str:
    """Take the last message away: its text is the beginning of the answer."""
    last = messages.pop()
    if last["role"] != "assistant" or not messages:
        raise InvalidRequestError(
            "continue_final_message needs an assistant message at the end, after another message",
            param="continue_final_message",
        )
    return str(last.get("content") or "")
