"""Calls that are nothing but JSON objects: {"name": "get_weather", "parameters": {"city": "Paris"}}.

Llama 3.1 and later write them so, at times behind <|python_tag|>, several with "; " between them or
in a list. A model that was taught no format is told to do the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inarch.grammar import Grammar
from inarch.parsing import Choice, Content, Parser, Template, Tool
from inarch_formats.calls import Calls, Outcome, read_list, read_object
from inarch_formats.reader import GeneratorParser, MalformedError, Reader, Steps, markers
from inarch_formats.structure import Format, allowed, grammar_of_calls, json_arguments, tag
from inarch_formats.values import quoted

OBJECT = (
    '{"name"'  # begins a call wherever it stands; at the start of an answer any object may be one
)


@dataclass(frozen=True)
class BareJson:
    """marker: what may come before a call; "" if nothing does. arguments: their key.

    signs: in the templates of these models, one or the other.
    """

    name: str
    marker: str
    arguments: str
    special: bool
    signs: tuple[str, ...] = ()
    reasons: bool = False

    def used_by(self, template: Template) -> bool:
        return any(sign in template.chat_template for sign in self.signs)

    def parser(self, tools: Sequence[Tool]) -> Parser:
        return GeneratorParser(lambda reader: self._read(reader, Calls(reader, tools)))

    def _read(self, reader: Reader, calls: Calls) -> Steps[None]:
        stops = markers(*filter(None, (self.marker, OBJECT)))
        outcome = yield from calls.attempt(_call(reader, calls))
        while True:
            if outcome is Outcome.WHOLE:
                outcome = yield from _following(reader, calls)
                continue
            marker = yield from reader.text(Content, stops)
            if marker is None:
                return
            if marker == OBJECT:
                reader.unread(marker)
            outcome = yield from calls.attempt(
                _call(reader, calls), self.marker if marker == self.marker else ""
            )

    def grammar(self, tools: Sequence[Tool], choice: Choice) -> Grammar:
        tags = [self._tag(tool) for tool in allowed(tools, choice)]
        return grammar_of_calls(choice, tags, triggers=[OBJECT], separator="; ")

    def _tag(self, tool: Tool) -> Format:
        begin = f'{OBJECT}: {quoted(tool.name)}, "{self.arguments}": '
        return tag(begin, json_arguments(tool), "}")


def _call(reader: Reader, calls: Calls) -> Steps[None]:
    if (yield from reader.spaces()) == "[":
        yield from read_list(reader, calls)
    else:
        yield from read_object(reader, calls)


def _following(reader: Reader, calls: Calls) -> Steps[Outcome]:
    """Read what follows a call: another one, or else content."""
    while not reader.rest.strip() and not reader.ended:
        reader.rest = ""
        yield
    reader.rest = reader.rest.lstrip()
    return (yield from calls.attempt(_separated(reader, calls)))


def _separated(reader: Reader, calls: Calls) -> Steps[None]:
    if (yield from reader.peek()) in ";,":
        reader.consume(1)
    elif reader.rest[0] != "{":
        raise MalformedError
    yield from _call(reader, calls)


BARE_JSON = (
    BareJson(
        name="llama3_json",
        marker="<|python_tag|>",
        arguments="parameters",
        special=True,
        signs=("<|python_tag|>", '{"name": function name, "parameters":'),
    ),
    BareJson(name="json", marker="", arguments="arguments", special=False),
)
