"""What the formats of calls have in common: which text is a call, and where its deltas go.

A call is tried. Until its name is known to be a tool's nothing of it is certain, and what was read
is content if it turns out not to be one. From then on its arguments stream. If it breaks off, what it
has of arguments is kept; what then follows is content, unless the answer ends there.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence

from inarch.parsing import Arguments, Call, Content, Tool
from inarch_formats.json_text import Take, copy_value, read_string
from inarch_formats.reader import CutOffError, MalformedError, Reader, Steps, markers

EMPTY = "{}"


class Outcome(enum.Enum):
    """What came of a call that was tried."""

    WHOLE = enum.auto()
    BROKEN = enum.auto()  # it broke off after its name
    NONE = enum.auto()  # it was none


class Calls:
    """The calls of one answer."""

    def __init__(self, reader: Reader, tools: Sequence[Tool]) -> None:
        self.reader = reader
        self.tools: Mapping[str, Tool] = {tool.name: tool for tool in tools}
        self.count = 0

    def begin(self, name: str, id: str | None = None) -> Take:
        """A call begins: what takes its arguments. Raises MalformedError if `name` is no tool."""
        if name not in self.tools:
            raise MalformedError
        index = self.count
        self.count += 1
        self.reader.keep()
        self.reader.emit(Call(index, name, id))
        return lambda text: self.reader.emit(Arguments(index, text))

    def attempt(self, call: Steps[None], marker: str = "") -> Steps[Outcome]:
        """Read a call that begins behind `marker`; from where it breaks off the text is unread."""
        reader, before = self.reader, self.count
        reader.begin(marker)
        try:
            yield from call
        except MalformedError as error:
            text, begun = reader.give_back(), self.count > before
            if begun and isinstance(error, CutOffError):
                reader.rest = ""  # the beginning of a marker
            elif text := text.strip() if begun else text:
                reader.emit(Content(text))
            return Outcome.BROKEN if begun else Outcome.NONE
        reader.keep()
        return Outcome.WHOLE


def read_tagged(
    reader: Reader, calls: Calls, begin: str, end: str, read: Callable[[], Steps[None]]
) -> Steps[None]:
    """Read an answer with calls between two markers. `read` reads what is between them."""
    usual, broken = markers(begin), markers(begin, end)
    outcome = Outcome.NONE
    while True:
        whole = outcome is Outcome.WHOLE
        stops = broken if outcome is Outcome.BROKEN else usual
        marker = yield from reader.text(Content, stops, begun=whole)
        if marker is None:
            return
        if marker == end:
            outcome = Outcome.WHOLE
        else:
            outcome = yield from calls.attempt(_closed(reader, read, end), begin)


def _closed(reader: Reader, read: Callable[[], Steps[None]], end: str) -> Steps[None]:
    yield from read()
    yield from reader.spaces()
    yield from reader.expect(end)


def read_object(
    reader: Reader, calls: Calls, *, arguments: Sequence[str] = ("arguments", "parameters")
) -> Steps[None]:
    """Read a call that is a JSON object with a "name" and "arguments" (by any of the names given).

    Other keys are passed over, except "id". Without arguments they are {}.
    """
    fields: dict[str, str] = {}
    early: list[str] = []  # arguments that come before the name
    take: Take | None = None
    given = False
    yield from reader.spaces()
    yield from reader.expect("{")
    while (yield from _next_key(reader, first=not fields and not early and not given)):
        key = yield from _key(reader)
        first = yield from reader.spaces()
        if key in arguments and not given:
            given = True
            if first != "{":
                raise MalformedError
            if "name" in fields:
                take = calls.begin(fields["name"], fields.get("id"))
            yield from copy_value(reader, take or early.append)
            if take is not None:
                reader.begin()
        elif key in ("name", "id") and first == '"' and key not in fields:
            fields[key] = yield from read_string(reader)
        else:
            fields.setdefault(key, "")
            yield from copy_value(reader, lambda text: None)
    if take is None:
        calls.begin(fields.get("name", ""), fields.get("id"))("".join(early) or EMPTY)


def _next_key(reader: Reader, *, first: bool) -> Steps[bool]:
    """Consume what stands before a key; False: it was the end of the object."""
    after = yield from reader.spaces()
    if after == "}":
        reader.consume(1)
        return False
    if not first:
        yield from reader.expect(",")
        yield from reader.spaces()
    return True


def _key(reader: Reader) -> Steps[str]:
    key = yield from read_string(reader)
    yield from reader.spaces()
    yield from reader.expect(":")
    return key
