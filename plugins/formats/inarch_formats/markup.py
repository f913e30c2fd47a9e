"""Calls whose arguments are markup, one element each, with bare text inside.

    <tool_call>                            <tool_call>get_weather
    <function=get_weather>                 <arg_key>city</arg_key>
    <parameter=city>                       <arg_value>Paris</arg_value>
    Paris                                  </tool_call>
    </parameter>
    </function>
    </tool_call>

To the left Qwen3-Coder; GLM 4.5 to the right; MiniMax M2 writes <invoke name="…"> instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from inarch.grammar import Grammar
from inarch.parsing import Choice, Parser, Template, Tool
from inarch_formats.calls import Calls, read_sections
from inarch_formats.elements import Bare, Property, one_by_one
from inarch_formats.reader import GeneratorParser, Reader, Steps, markers
from inarch_formats.structure import (
    Format,
    allowed,
    const,
    grammar_of_calls,
    grammar_of_sections,
    sequence,
    tag,
)
from inarch_formats.values import copy_raw, quoted


@dataclass(frozen=True)
class Markup:
    """begin, end: around the calls of an answer, "" if there are none such.

    call, call_end: around one call; its name ends with any of name_ends, of which those that begin
    what comes next are left unread. key, key_end, value, value_end: around an argument's name and
    its value; `value` is "" if nothing comes between them. trim: a line break at either end of a
    value is not part of it. sign: is in the templates of these models and of no others.
    """

    name: str
    begin: str
    end: str
    call: str
    name_ends: tuple[str, ...]
    call_end: str
    key: str
    key_end: str
    value: str
    value_end: str
    trim: bool
    sign: str
    special: bool = True
    reasons: bool = False

    def used_by(self, template: Template) -> bool:
        return self.sign in template.chat_template

    def parser(self, tools: Sequence[Tool]) -> Parser:
        def read(reader: Reader) -> Steps[None]:
            calls = Calls(reader, tools)
            return read_sections(
                reader, calls, self.begin, self.call, self.end, lambda: self._call(reader, calls)
            )

        return GeneratorParser(read)

    def _call(self, reader: Reader, calls: Calls) -> Steps[None]:
        yield from reader.spaces()
        name, text = yield from calls.name(self.name_ends)
        if (end := text.removeprefix(name)) in (self.key, self.call_end):
            reader.unread(end)
        tool, take = calls.tools[name], calls.begin(name)
        stops, before = markers(self.value_end), "{"
        while True:
            reader.begin()
            yield from reader.spaces()
            if (yield from reader.expect(self.key, self.call_end)) == self.call_end:
                take("{}" if before == "{" else "}")
                return
            key = yield from self._key(reader)
            reader.keep()
            take(f"{before}{quoted(key)}: ")
            yield from copy_raw(reader, stops, tool, key, take, trim=self.trim)
            before = ", "

    def _key(self, reader: Reader) -> Steps[str]:
        key, _ = yield from reader.until(markers(self.key_end))
        if self.value:
            yield from reader.spaces()
            yield from reader.expect(self.value)
        return key.strip()

    def grammar(self, tools: Sequence[Tool], choice: Choice) -> Grammar:
        tags = [self._tag(tool) for tool in allowed(tools, choice)]
        if not self.begin:
            return grammar_of_calls(choice, tags, triggers=[self.call], separator="\n")
        return grammar_of_sections(
            choice, tags, begin=f"{self.begin}\n", end=self.end, separator=""
        )

    def _tag(self, tool: Tool) -> Format:
        line = "\n" if self.begin else ""
        first = self.name_ends[0]
        begin = f"{self.call}{tool.name}{first}" + ("\n" if first.strip() else "")
        return tag(begin, one_by_one(tool, partial(self._element, tool)), f"{self.call_end}{line}")

    def _element(self, tool: Tool, one: Property) -> Format:
        """An argument; a break of lines behind it is part of no marker, so that text ends at one."""
        value = f"\n{self.value}" if self.value else ""
        begin = f"{self.key}{one.name}{self.key_end}{value}"
        line = "\n" if self.trim else ""
        return sequence([Bare(tool, begin, self.value_end, line).value(one.schema), const("\n")])


MARKUPS = (
    Markup(
        name="qwen3_coder",
        begin="<tool_call>",
        end="</tool_call>",
        call="<function=",
        name_ends=(">",),
        call_end="</function>",
        key="<parameter=",
        key_end=">",
        value="",
        value_end="</parameter>",
        trim=True,
        sign="<function=",
    ),
    Markup(
        name="minimax_m2",
        begin="<minimax:tool_call>",
        end="</minimax:tool_call>",
        call='<invoke name="',
        name_ends=('">',),
        call_end="</invoke>",
        key='<parameter name="',
        key_end='">',
        value="",
        value_end="</parameter>",
        trim=False,
        sign="minimax:tool_call",
    ),
    Markup(
        name="glm45",
        begin="",
        end="",
        call="<tool_call>",
        name_ends=("\n", " ", "\t", "\r", "<arg_key>", "</tool_call>"),
        call_end="</tool_call>",
        key="<arg_key>",
        key_end="</arg_key>",
        value="<arg_value>",
        value_end="</arg_value>",
        trim=False,
        sign="<arg_key>",
    ),
)
