"""What lies between an API's words and the engine: a conversation in, deltas out.

Every API that talks in messages uses this, and none of them knows a tokenizer, a chat template, a
grammar or a parser. A handler does four things:

    asked = Conversation(messages=..., tools=..., choice=..., answer=..., ...)    # its own words
    turn = await prepare(service, asked, sampling_params(service.engine, body))   # ids, grammar
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

from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar
from inarch.parsing import Choice, Tool
from inarch.sampling import SamplingParams
from inarch_server.holding import hold
from inarch_server.prompts import INLINE_LENGTH, Prompt, tokenize
from inarch_server.reading import Reader, Reading, make_reading
from inarch_server.template import render

if TYPE_CHECKING:
    from inarch_server.answers import Answers
    from inarch_server.service import Service

PROMPT_END = 256  # characters of a prompt by which a format tells whether reasoning has begun


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What a client asks for, in the words of no API.

    messages: as OpenAI's chat API has them, their content as text. choice: None forbids calls.
    answer: the language of the answer, where no tool is called. variables: for the chat template.
    called: what the client calls `messages`, `tools`, `answer` and `effort`, for refusals.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Tool] = ()
    choice: Choice | None = Choice()
    answer: Grammar | None = None
    effort: str | None = None  # how much to reason: "none", "low", "medium", "high" ...
    separate_reasoning: bool = True
    continue_final: bool = False  # the last message is the beginning of the answer
    variables: Mapping[str, Any] = field(default_factory=dict)
    called: Mapping[str, str] = field(default_factory=dict)

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

    `params` may hold a grammar already (regex, ebnf ...): it is then the language of the answer.
    """
    length = sum(len(message.get("content") or "") for message in asked.messages)
    if length <= INLINE_LENGTH:
        text = _render(service, asked)
    else:
        text = await asyncio.to_thread(_render, service, asked)
    # The template itself writes the tokens that begin a text.
    (prompt,) = await tokenize(service.engine, {asked.name("messages"): text}, special=False)
    formats = service.engine.formats
    if not asked.separate_reasoning:
        formats = replace(formats, reasoning=None)
    callable_tools = asked.tools if asked.choice is not None else ()
    prompt_end = text[-PROMPT_END:]
    reading = make_reading(service.engine.tokenizer, formats, callable_tools, prompt_end)
    grammar = hold(service.engine, asked, params.grammar, prompt_end)
    params = msgspec.structs.replace(
        params,
        grammar=grammar,
        skip_special_tokens=params.skip_special_tokens and not reading.special,
    )
    return Turn(prompt, params, reading)


def _render(service: Service, asked: Conversation) -> str:
    messages = list(asked.messages)
    begun = _begun_answer(messages) if asked.continue_final else ""
    return render(service.engine, replace(asked, messages=messages)) + begun


def _begun_answer(messages: list[Mapping[str, Any]]) -> str:
    """Take the last message away: its text is the beginning of the answer."""
    last = messages.pop()
    if last["role"] != "assistant" or not messages:
        raise InvalidRequestError(
            "continue_final_message needs an assistant message at the end, after another message",
            param="continue_final_message",
        )
    return str(last.get("content") or "")
