"""From the pieces of an answer to what they say: content, reasoning, calls, and what they cost."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from inarch.parsing import Arguments, Call, Content, Delta, Parser, Reasoning, Tool

if TYPE_CHECKING:
    from inarch.engine.text.tokenizer import Tokenizer
    from inarch.formats import Formats
    from inarch_server.answering.answers import Answers, Piece


@dataclass(frozen=True)
class Reading:
    """How the answers to one request are to be read.

    parser: makes one for each answer; None if all text is content. reasoning_end: the tokens that
    end reasoning. count: how many tokens a text has.
    """

    parser: Callable[[], Parser] | None = None
    special: bool = False  # its markers are special tokens, which the text must keep
    reasoning_end: tuple[int, ...] = ()
    count: Callable[[str], int] = len


def make_reading(
    tokenizer: Tokenizer, formats: Formats, tools: Sequence[Tool], prompt_end: str
) -> Reading:
    """`tools`: what may be called. `prompt_end`: the last characters of the prompt."""
    if formats.reasoning is None and not (tools and formats.tools):
        return Reading()

    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    return Reading(
        parser=partial(formats.open_parser, tools, prompt_end),
        special=formats.special(tools),
        reasoning_end=encode(formats.reasoning.end) if formats.reasoning is not None else (),
        count=lambda text: len(encode(text)),
    )


@dataclass(frozen=True, slots=True)
class Said:
    """What a piece adds to its choice."""

    deltas: Sequence[Delta]
    finish_reason: str | None  # as the engine has it, or "tool_calls"


class Reader:
    """Reads all choices of one request."""

    def __init__(self, reading: Reading, answers: Answers) -> None:
        self._reading, self._answers = reading, answers
        self._choices: dict[int, _Choice] = {}
        self.plain = reading.parser is None

    def read(self, piece: Piece) -> Said:
        if self._reading.parser is None:
            return Said([Content(piece.text)] if piece.text else [], piece.finish_reason)
        choice = self._choices.get(piece.index)
        if choice is None:
            choice = _Choice(self._reading, self._reading.parser())
            self._choices[piece.index] = choice
        return choice.read(piece)

    @property
    def reasoning_tokens(self) -> int:
        return sum(choice.reasoning_tokens for choice in self._choices.values())

    def usage(self) -> dict[str, Any]:
        """Tokens so far, in OpenAI's words."""
        details = {"reasoning_tokens": self.reasoning_tokens}
        return {**self._answers.usage(), "completion_tokens_details": details}


class _Choice:
    """One answer on its way through its parser."""

    def __init__(self, reading: Reading, parser: Parser) -> None:
        self._reading, self._parser = reading, parser
        self._called = False
        self._reasoned: list[str] = []
        self._tokens: list[int] = []  # up to the end of reasoning
        self._reasoning_over = not reading.reasoning_end
        self._answered = False  # something that is no reasoning came

    def read(self, piece: Piece) -> Said:
        deltas = self._parser.feed(piece.text) if piece.text else []
        if piece.finish_reason is not None:
            deltas = [*deltas, *self._parser.end()]
        deltas = [_with_id(delta) for delta in deltas]
        self._called = self._called or any(type(delta) is Call for delta in deltas)
        self._watch(piece, deltas)
        reason = piece.finish_reason
        return Said(deltas, "tool_calls" if reason == "stop" and self._called else reason)

    def _watch(self, piece: Piece, deltas: Sequence[Delta]) -> None:
        """Keep what is needed to tell how many tokens went into reasoning."""
        self._reasoned += [delta.text for delta in deltas if type(delta) is Reasoning]
        self._answered = self._answered or any(type(delta) is not Reasoning for delta in deltas)
        if self._reasoning_over:
            return
        end = self._reading.reasoning_end
        for token in piece.token_ids:
            self._tokens.append(token)
            if token == end[-1] and tuple(self._tokens[-len(end) :]) == end:
                self._reasoning_over = True
                break

    @property
    def reasoning_tokens(self) -> int:
        """With the markers around it, where the end is seen among the tokens."""
        if not any(self._reasoned):
            return 0
        if self._reasoning_over and self._reading.reasoning_end:
            return len(self._tokens)
        if not self._answered and self._reading.reasoning_end:
            return len(self._tokens)
        return self._reading.count("".join(self._reasoned))


def _with_id(delta: Delta) -> Delta:
    """Clients match results to calls by id: a call of a format without ids gets one."""
    if type(delta) is Call and delta.id is None:
        return Call(delta.index, delta.name, f"call_{uuid.uuid4().hex[:24]}")
    return delta


def parsed_arguments(text: str) -> dict[str, Any]:
    """The arguments of a call as an object; of a call that was cut off, what there is of them."""
    try:
        value = from_json(text or "{}", allow_partial=True)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"malformed": text}


@dataclass
class CallMade:
    id: str
    name: str
    arguments: str = ""  # a JSON object


@dataclass
class Message:
    """A whole answer."""

    content: str = ""
    reasoning: str = ""
    calls: list[CallMade] = field(default_factory=list)

    @classmethod
    def of(cls, deltas: Iterable[Delta]) -> Message:
        message = cls()
        for delta in deltas:
            message.add(delta)
        return message

    def add(self, delta: Delta) -> None:
        match delta:
            case Content(text):
                self.content += text
            case Reasoning(text):
                self.reasoning += text
            case Call():
                self.calls.append(CallMade(delta.id or "", delta.name))
            case Arguments():
                self.calls[-1].arguments += delta.text
