"""Calls between two markers, each a JSON object with a name and arguments.

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Paris"}}
    </tool_call>

So write Hermes 2 and later, Qwen2.5 and Qwen3.
"""

from __future__ import annotations

from collections.abc import Sequence

from inarch.grammar import Grammar
from inarch.parsing import Choice, Parser, Template, Tool
from inarch_formats.calls import Calls, read_object, read_tagged
from inarch_formats.reader import GeneratorParser, Reader, Steps
from inarch_formats.structure import allowed, grammar_of_calls, json_arguments, tag
from inarch_formats.values import quoted

BEGIN, END = "<tool_call>", "</tool_call>"


class Hermes:
    name = "hermes"
    special = True
    reasons = False

    def used_by(self, template: Template) -> bool:
        text = template.chat_template
        return BEGIN in text and "<function=" not in text and "<arg_key>" not in text

    def parser(self, tools: Sequence[Tool]) -> Parser:
        def read(reader: Reader) -> Steps[None]:
            calls = Calls(reader, tools)
            return read_tagged(reader, calls, BEGIN, END, lambda: read_object(reader, calls))

        return GeneratorParser(read)

    def grammar(self, tools: Sequence[Tool], choice: Choice) -> Grammar:
        tags = [
            tag(
                f'{BEGIN}\n{{"name": {quoted(tool.name)}, "arguments": ',
                json_arguments(tool),
                f"}}\n{END}",
            )
            for tool in allowed(tools, choice)
        ]
        return grammar_of_calls(choice, tags, triggers=[BEGIN], separator="\n")
