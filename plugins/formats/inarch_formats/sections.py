"""Calls with JSON arguments, each between markers of its own, all of them in one section.

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>
    <｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>

This is DeepSeek V3.1. V3 writes "function" before the name and a code block around the arguments.
Kimi K2 has an id for a name, functions.f:0, and markers of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inarch.grammar import Grammar
from inarch.parsing import Choice, Parser, Template, Tool
from inarch_formats.calls import Calls, read_arguments, read_sections
from inarch_formats.reader import GeneratorParser, MalformedError, Reader, Steps, markers
from inarch_formats.structure import (
    Format,
    allowed,
    const,
    grammar_of_sections,
    json_arguments,
    sequence,
    tag,
)


@dataclass(frozen=True)
class Sections:
    """sign: is in the templates of these models, as `begin` is. begin, end: around all calls.

    call: comes before each of them, head: before its name, name_end: behind that. call_end: what
    comes behind the arguments, white space aside.
    """

    name: str
    sign: str
    begin: str
    end: str
    call: str
    head: str
    name_end: str
    call_end: tuple[str, ...]
    separator: str
    special: bool = True
    reasons: bool = False

    def used_by(self, template: Template) -> bool:
        return self.begin in template.chat_template and self.sign in template.chat_template

    def parser(self, tools: Sequence[Tool]) -> Parser:
        def read(reader: Reader) -> Steps[None]:
            calls = Calls(reader, tools)
            return read_sections(
                reader, calls, self.begin, self.call, self.end, lambda: self._call(reader, calls)
            )

        return GeneratorParser(read)

    def _call(self, reader: Reader, calls: Calls) -> Steps[None]:
        name, id = yield from self._head(reader, calls)
        yield from read_arguments(reader, calls, name, id)
        for text in self.call_end:
            yield from reader.spaces()
            yield from reader.expect(text)

    def _head(self, reader: Reader, calls: Calls) -> Steps[tuple[str, str | None]]:
        yield from reader.spaces()
        if self.head:
            yield from reader.expect(self.head)
        name, _ = yield from calls.name((self.name_end,))
        return name, None

    def grammar(self, tools: Sequence[Tool], choice: Choice) -> Grammar:
        return grammar_of_sections(
            choice,
            [self._tag(tool) for tool in allowed(tools, choice)],
            begin=self.begin,
            end=self.end,
            separator=self.separator,
        )

    def _tag(self, tool: Tool) -> Format:
        end = "".join(self.call_end)
        return tag(
            f"{self.call}{self.head}{tool.name}{self.name_end}",
            json_arguments(tool),
            f"\n{end}" if len(self.call_end) > 1 else end,
        )


@dataclass(frozen=True)
class KimiK2(Sections):
    """The head of a call is its id, which counts the calls of the conversation."""

    def _head(self, reader: Reader, calls: Calls) -> Steps[tuple[str, str | None]]:
        yield from reader.spaces()
        name, text = yield from calls.name((":",), (self.head, ""))
        number, _ = yield from reader.until(markers(self.name_end))
        if not number.strip().isdecimal():
            raise MalformedError
        return name, text + number.strip()

    def _tag(self, tool: Tool) -> Format:
        number: Format = {"type": "regex", "pattern": "(0|[1-9][0-9]{0,3})"}
        return tag(
            f"{self.call}{self.head}{tool.name}:",
            sequence([number, const(self.name_end), json_arguments(tool)]),
            *self.call_end,
        )


def _deepseek(
    name: str, sign: str, head: str, name_end: str, call_end: tuple[str, ...], separator: str
) -> Sections:
    return Sections(
        name=name,
        sign=sign,
        begin="<｜tool▁calls▁begin｜>",
        end="<｜tool▁calls▁end｜>",
        call="<｜tool▁call▁begin｜>",
        head=head,
        name_end=name_end,
        call_end=(*call_end, "<｜tool▁call▁end｜>"),
        separator=separator,
    )


SECTIONS = (
    KimiK2(
        name="kimi_k2",
        sign="<|tool_call_begin|>",
        begin="<|tool_calls_section_begin|>",
        end="<|tool_calls_section_end|>",
        call="<|tool_call_begin|>",
        head="functions.",
        name_end="<|tool_call_argument_begin|>",
        call_end=("<|tool_call_end|>",),
        separator="",
    ),
    _deepseek("deepseek_v3", "```json", "function<｜tool▁sep｜>", "\n```json\n", ("```",), "\n"),
    _deepseek("deepseek_v31", "", "", "<｜tool▁sep｜>", (), ""),
)
