"""Text that comes piece by piece, read as if it were all there.

A format's parser is a generator over a Reader: plain code from the first character of an answer to
the last, which waits (`yield`) wherever the text so far does not decide. That is what makes the
deltas the same however the text was split.

White space next to a marker belongs to the marker: it is neither content nor reasoning.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from inarch.parsing import Arguments, Call, Content, Delta, Reasoning

MOST = 2048  # characters that are read at once
T = TypeVar("T")
Steps = Generator[None, None, T]
Kind = type[Content] | type[Reasoning]


class MalformedError(Exception):
    """The text is not what the format says."""


class CutOffError(MalformedError):
    """The text ended before the format says it may."""


@functools.lru_cache(256)
def markers(*texts: str) -> re.Pattern[str]:
    """Finds the first of some markers, or at the end of a text what may become one (no group)."""
    beginnings = {text[:n] for text in texts for n in range(1, len(text))}
    whole = "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))
    parts = "|".join(re.escape(part) for part in sorted(beginnings, key=len, reverse=True))
    return re.compile(f"({whole})|(?:{parts})\\Z" if parts else f"({whole})")


class Reader:
    """What was fed and not yet consumed, and the deltas found so far.

    rest: the text from here on. ended: no more comes. deltas: found since they were last taken.
    """

    def __init__(self) -> None:
        self.rest = ""
        self.ended = False
        self.deltas: list[Delta] = []
        self._record: list[str] | None = None  # consumed, but perhaps to be given back as content
        self._space = ""  # that `text` found before a marker

    # ---- to be used by parsers, outside of tentative parts ----

    def text(
        self, kind: Kind, stops: re.Pattern[str], *, begun: bool = False, due: bool = False
    ) -> Steps[str | None]:
        """Emit text up to a marker, and consume the marker. None: the text ended without one.

        begun: a marker came just before, so white space that comes first belongs to it.
        due: a marker must come, so if the text ends with the beginning of one, that is no text.
        """
        held: list[str] = []  # white space that belongs to a marker if one follows
        while True:
            rest = self.rest
            match = stops.search(rest)
            before = rest if match is None else rest[: match.start()]
            if begun:
                before = before.lstrip()
                begun = not before
            body = before.rstrip()
            if body:
                self.emit(kind("".join(held) + body if held else body))
                held.clear()
            if len(body) != len(before):
                held.append(before[len(body) :])
            if match is not None and match.group(1) is not None:
                self.rest = rest[match.end() :]
                self._space = "".join(held)
                return match.group(1)
            self.rest = "" if match is None else rest[match.start() :]
            if self.ended:
                if left := "".join(held) + ("" if due else self.rest):
                    self.emit(kind(left))
                self.rest = ""
                return None
            yield

    def emit(self, delta: Delta) -> None:
        self.deltas.append(delta)

    # ---- to be used within calls: these raise MalformedError ----

    def begin(self, consumed: str = "") -> None:
        """From here on what is consumed is remembered, until `keep` or `give_back`.

        consumed: a marker that `text` has just found, if that is to be remembered as well.
        """
        self._record = [self._space, consumed]
        self._space = ""

    def keep(self) -> None:
        """What was consumed since `begin` means something, or is part of a marker."""
        self._record = None
        self._space = ""

    def give_back(self) -> str:
        """What was consumed since `begin`; nothing if `keep` was called."""
        text = "".join(self._record or ())
        self._record = None
        return text

    def consume(self, length: int) -> str:
        text, self.rest = self.rest[:length], self.rest[length:]
        if self._record is not None:
            self._record.append(text)
        return text

    def unread(self, text: str) -> None:
        """Put back what was consumed last."""
        self.rest = text + self.rest
        if self._record is not None:
            self._record[:] = ["".join(self._record).removesuffix(text)]

    def more(self) -> Steps[None]:
        """Wait for more text."""
        if self.ended:
            raise CutOffError
        yield

    def peek(self) -> Steps[str]:
        """The next character, left unread."""
        while not self.rest:
            yield from self.more()
        return self.rest[0]

    def spaces(self) -> Steps[str]:
        """Consume white space, and give the character behind it, left unread."""
        while True:
            if left := self.rest.lstrip():
                if len(left) != len(self.rest):
                    self.consume(len(self.rest) - len(left))
                return left[0]
            self.consume(len(self.rest))
            yield from self.more()

    def expect(self, *texts: str) -> Steps[str]:
        """Consume one of some texts, none of which is the beginning of another."""
        while True:
            for text in texts:
                if self.rest.startswith(text):
                    self.consume(len(text))
                    return text
            if not any(text.startswith(self.rest) for text in texts):
                raise MalformedError
            yield from self.more()

    def until(
        self, stops: re.Pattern[str], take: Callable[[str], None] | None = None
    ) -> Steps[tuple[str, str]]:
        """Consume text up to and with a marker: both. `take` is given the text as it comes."""
        pieces: list[str] = []
        take = take or pieces.append
        while True:
            match = stops.search(self.rest)
            if length := len(self.rest) if match is None else match.start():
                take(self.consume(length))
            if match is not None and match.group(1) is not None:
                return "".join(pieces), self.consume(len(match.group(1)))
            yield from self.more()


class GeneratorParser:
    """A Parser (see inarch.parsing) from a generator that reads a Reader to its end."""

    def __init__(self, read: Callable[[Reader], Steps[None]]) -> None:
        self._reader = Reader()
        self._steps = read(self._reader)
        next(self._steps, None)

    def feed(self, text: str) -> list[Delta]:
        reader = self._reader
        # A parser copies what it has not yet consumed again and again, so that must stay short.
        for start in range(0, len(text), MOST):
            piece = text[start : start + MOST]
            reader.rest = reader.rest + piece if reader.rest else piece
            next(self._steps, None)
        return self._taken()

    def end(self) -> list[Delta]:
        self._reader.ended = True
        for _ in self._steps:
            pass
        return self._taken()

    def _taken(self) -> list[Delta]:
        if not (deltas := self._reader.deltas):
            return []
        self._reader.deltas = []
        return deltas if len(deltas) == 1 else _joined(deltas)


def _joined(deltas: list[Delta]) -> list[Delta]:
    """Neighbours that say more of the same become one."""
    out: list[Delta] = []
    for (kind, index), group in itertools.groupby(deltas, key=_subject):
        found = list(group)
        if kind is Call or len(found) == 1:
            out += found
        else:
            text = "".join(delta.text for delta in found if not isinstance(delta, Call))
            out.append(Arguments(index, text) if kind is Arguments else kind(text))
    return out


def _subject(delta: Delta) -> tuple[type[Any], int]:
    return type(delta), delta.index if isinstance(delta, Call | Arguments) else 0
