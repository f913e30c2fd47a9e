"""Calls written in Python: [get_weather(city="Paris", days=3), get_time()]. So writes Llama 4."""

from __future__ import annotations

from collections.abc import Sequence

from inarch.grammar import Grammar
from inarch.parsing import Choice, Content, Parser, Template, Tool
from inarch_formats.calls import EMPTY, Calls, Outcome
from inarch_formats.elements import keyword_arguments
from inarch_formats.python_text import copy_literal, read_word
from inarch_formats.reader import GeneratorParser, MalformedError, Reader, Steps, markers
from inarch_formats.structure import (
    allowed,
    const,
    grammar_of_calls,
    grammar_of_sections,
    one_of,
    repeated,
    sequence,
    tag,
)
from inarch_formats.values import quoted

START, END = "<|python_start|>", "<|python_end|>"  # which not all models write


class Pythonic:
    name = "pythonic"
    special = True
    reasons = False

    def used_by(self, template: Template) -> bool:
        return START in template.chat_template or "[func_name1(" in template.chat_template

    def parser(self, tools: Sequence[Tool]) -> Parser:
        return GeneratorParser(lambda reader: _read(reader, Calls(reader, tools)))

    def grammar(self, tools: Sequence[Tool], choice: Choice) -> Grammar:
        tools = allowed(tools, choice)
        calls = [tag(f"{tool.name}(", keyword_arguments(tool), ")") for tool in tools]
        if choice.kind != "auto":
            return grammar_of_sections(choice, calls, begin="[", end="]", separator=", ")
        more = repeated(sequence([const(", "), one_of(calls)]))
        tags = [
            tag(
                f"[{tool.name}(",
                sequence(
                    [keyword_arguments(tool), const(")"), *([more] if choice.parallel else [])]
                ),
                "]",
            )
            for tool in tools
        ]
        triggers = [f"[{tool.name}(" for tool in tools]
        return grammar_of_calls(choice, tags, triggers=triggers, separator="")


def _read(reader: Reader, calls: Calls) -> Steps[None]:
    beginnings = (START, *(f"[{name}(" for name in calls.tools))
    outside, behind = markers(*beginnings), markers(END, *beginnings)
    whole = False
    while marker := (yield from reader.text(Content, behind if whole else outside, begun=whole)):
        if marker == END:
            continue
        if marker != START:
            reader.unread(marker)
        outcome = yield from calls.attempt(_list(reader, calls), START if marker == START else "")
        whole = outcome is Outcome.WHOLE


def _list(reader: Reader, calls: Calls) -> Steps[None]:
    yield from reader.spaces()
    yield from reader.expect("[")
    while True:
        yield from reader.spaces()
        name, _ = yield from calls.name(("(",))
        yield from _arguments(reader, calls, name)
        reader.begin()
        yield from reader.spaces()
        if (yield from reader.expect(",", "]")) == "]":
            return


def _arguments(reader: Reader, calls: Calls, name: str) -> Steps[None]:
    """Consume keyword arguments and the parenthesis behind them."""
    take = None
    while (yield from reader.spaces()) != ")":
        key = yield from read_word(reader)
        yield from reader.spaces()
        yield from reader.expect("=")
        if not key.isidentifier():
            raise MalformedError
        before = ", "
        if take is None:
            take, before = calls.begin(name), "{"
        reader.keep()
        take(f"{before}{quoted(key)}: ")
        yield from copy_literal(reader, take)
        reader.begin()
        if (yield from reader.spaces()) != ")":
            yield from reader.expect(",")
    reader.consume(1)
    if take is None:
        calls.begin(name)(EMPTY)
    else:
        take("}")
