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
# Of a call that is an object. Any other key says that it is none.
KEYS = {k: k for k in ("name", "arguments", "id", "type")} | {"parameters": "arguments"}


class Outcome(enum.Enum):
    """What came of a call that was tried."""

    WHOLE = enum.auto()
    BROKEN = enum.auto()  # it broke off after its name
    NONE = enum.auto()  # it was none


class Calls:
    """The calls of one answer."""

    def __init__(
        self,
        reader: Reader,
        tools: Sequence[Tool],
        make_id: Callable[[str | None], str | None] = lambda id: id,
    ) -> None:
        """make_id: the id of a call, from what the model wrote, if that."""
        self.reader = reader
        self.make_id = make_id
        self.tools: Mapping[str, Tool] = {tool.name: tool for tool in tools}
        self.count = 0

    def begin(self, name: str, id: str | None = None) -> Take:
        """A call begins: what takes its arguments. Raises MalformedError if `name` is no tool."""
        if name not in self.tools:
            raise MalformedError
        index = self.count
        self.count += 1
        self.reader.keep()
        self.reader.emit(Call(index, name, self.make_id(id)))
        return lambda text: self.reader.emit(Arguments(index, text)) if text else None

    def name(self, ends: Sequence[str], heads: Sequence[str] = ("",)) -> Steps[tuple[str, str]]:
        """Consume the name of a tool, between one of `heads` and one of `ends`: it, and all that."""
        spelled = {
            f"{head}{name}{end}": name for head in heads for name in self.tools for end in ends
        }
        text = yield from self.reader.expect(*spelled)
        return spelled[text], text

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


def read_sections(
    reader: Reader, calls: Calls, begin: str, call: str, end: str, read: Callable[[], Steps[None]]
) -> Steps[None]:
    """Read an answer whose calls each begin with `call`, and stand between `begin` and `end`.

    begin, end: "" if nothing stands around the calls; a `begin` that the model left out is not
    missed. read: consumes a call from behind its beginning to its end.
    """
    outside = markers(*filter(None, (begin, call)))
    inside = markers(*filter(None, (call, end)))
    stops, whole = outside, False
    while True:
        due = bool(end) and stops is inside
        marker = yield from reader.text(Content, stops, begun=whole, due=due)
        if marker is None:
            return
        if marker == end:
            stops, whole = outside, True
            continue
        body = read() if marker == call else _behind(reader, call, read)
        outcome = yield from calls.attempt(body, marker)
        stops, whole = outside if outcome is Outcome.NONE else inside, outcome is Outcome.WHOLE


def _behind(reader: Reader, call: str, read: Callable[[], Steps[None]]) -> Steps[None]:
    yield from reader.spaces()
    yield from reader.expect(call)
    yield from read()


def read_tagged(
    reader: Reader, calls: Calls, begin: str, end: str, read: Callable[[], Steps[None]]
) -> Steps[None]:
    """Read an answer with calls that each stand between two markers; `read` reads what is between.

    The end of one that broke off is passed over.
    """
    outside, inside = markers(begin), markers(begin, end)
    stops, whole = outside, False
    while (marker := (yield from reader.text(Content, stops, begun=whole))) is not None:
        if marker == end:
            stops, whole = outside, True
            continue
        outcome = yield from calls.attempt(_closed(reader, read, end), begin)
        stops, whole = inside if outcome is Outcome.BROKEN else outside, outcome is Outcome.WHOLE


def _closed(reader: Reader, read: Callable[[], Steps[None]], end: str) -> Steps[None]:
    yield from read()
    yield from reader.spaces()
    yield from reader.expect(end)


def read_arguments(reader: Reader, calls: Calls, name: str, id: str | None = None) -> Steps[None]:
    """Read the arguments of a call, a JSON object; the call begins where they do."""
    if (yield from reader.spaces()) != "{":
        raise MalformedError
    yield from copy_value(reader, calls.begin(name, id))
    reader.begin()


def read_list(reader: Reader, calls: Calls) -> Steps[None]:
    """Read calls that are the objects of a JSON list."""
    yield from reader.spaces()
    yield from reader.expect("[")
    while True:
        yield from read_object(reader, calls)
        reader.begin()
        yield from reader.spaces()
        if (yield from reader.expect(",", "]")) == "]":
            return


def read_object(reader: Reader, calls: Calls) -> Steps[None]:
    """Read a call that is a JSON object with a name and arguments, which may be called parameters.

    Without arguments they are {}.
    """
    fields: dict[str, str] = {}
    early: list[str] = []  # arguments that come before the name
    take: Take | None = None
    yield from reader.spaces()
    yield from reader.expect("{")
    while (yield from _next_key(reader, first=not fields)):
        key = yield from _key(reader)
        if key in fields:
            raise MalformedError
        if key != "arguments":
            fields[key] = yield from read_string(reader)
            continue
        fields[key] = ""
        if (yield from reader.peek()) != "{":
            raise MalformedError
        if "name" in fields:
            take = calls.begin(fields["name"], fields.get("id"))
        yield from copy_value(reader, take or early.append)
        if take is not None:
            reader.begin()
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
    """Consume what comes before a value, white space too."""
    key = yield from read_string(reader)
    yield from reader.spaces()
    yield from reader.expect(":")
    yield from reader.spaces()
    if key not in KEYS:
        raise MalformedError
    return KEYS[key]
