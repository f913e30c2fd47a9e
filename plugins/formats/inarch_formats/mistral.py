"""Calls as Mistral's models write them, behind [TOOL_CALLS].

    [TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]     up to 2024
    [TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}                            since 2025

Their templates refuse ids that are not nine letters or digits.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence

from inarch.grammar import Grammar
from inarch.parsing import Choice, Content, Parser, Template, Tool
from inarch_formats.calls import Calls, Outcome, read_arguments, read_list, read_object
from inarch_formats.reader import GeneratorParser, MalformedError, Reader, Steps, markers
from inarch_formats.structure import (
    Format,
    allowed,
    grammar_of_calls,
    json_arguments,
    separated,
    tag,
)
from inarch_formats.values import quoted

BEGIN, ID, ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
LETTERS = string.ascii_letters + string.digits
ID_LENGTH = 9


class Mistral:
    name = "mistral"
    special = True
    reasons = False

    def used_by(self, template: Template) -> bool:
        return BEGIN in template.chat_template

    def parser(self, tools: Sequence[Tool]) -> Parser:
        return GeneratorParser(lambda reader: _read(reader, Calls(reader, tools, _proper_id)))

    def grammar(self, tools: Sequence[Tool], choice: Choice) -> Grammar:
        """Either way to write calls: which of them a model was taught, it knows best."""
        tools = allowed(tools, choice)
        tags = [tag(f"{BEGIN}{tool.name}{ARGUMENTS}", json_arguments(tool), "") for tool in tools]
        objects = [_object(tool) for tool in tools]
        tags.append(tag(f"{BEGIN}[", separated(objects, ", ", choice), "]"))
        return grammar_of_calls(choice, tags, triggers=[BEGIN], separator="")


def _object(tool: Tool) -> Format:
    return tag(f'{{"name": {quoted(tool.name)}, "arguments": ', json_arguments(tool), "}")


def _proper_id(id: str | None) -> str:
    if id is not None and len(id) == ID_LENGTH and set(id) <= set(LETTERS):
        return id
    return "".join(secrets.choice(LETTERS) for _ in range(ID_LENGTH))


def _read(reader: Reader, calls: Calls) -> Steps[None]:
    begun = False
    while (yield from reader.text(Content, markers(BEGIN), begun=begun)) is not None:
        outcome = yield from calls.attempt(_call(reader, calls), BEGIN)
        begun = outcome is Outcome.WHOLE


def _call(reader: Reader, calls: Calls) -> Steps[None]:
    first = yield from reader.spaces()
    if first == "[":
        yield from read_list(reader, calls)
    elif first == "{":
        yield from read_object(reader, calls)
    else:
        yield from _named(reader, calls)


def _named(reader: Reader, calls: Calls) -> Steps[None]:
    id = None
    name, text = yield from calls.name((ARGUMENTS, ID, "{"))  # a bare one: its marker was left out
    if text.endswith(ID):
        id, _ = yield from reader.until(markers(ARGUMENTS))
        if not id.isalnum():
            raise MalformedError
    elif text.endswith("{"):
        reader.unread("{")
    yield from read_arguments(reader, calls, name, id)
