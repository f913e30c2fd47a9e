"""The messages of gpt-oss: a channel for reasoning, one for calls, one for the answer.

    <|channel|>analysis<|message|>REASONING<|end|>
    <|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{…}<|call|>
    <|start|>assistant<|channel|>final<|message|>ANSWER<|return|>

The prompt ends with <|start|>assistant. https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from inarch.grammar import Grammar
from inarch.parsing import Choice, Content, Parser, Reasoning, Template, Tool
from inarch_formats.calls import EMPTY, Calls, Outcome
from inarch_formats.json_text import copy_value
from inarch_formats.reader import GeneratorParser, Reader, Steps, markers
from inarch_formats.structure import (
    TEXT,
    Format,
    allowed,
    const,
    json_arguments,
    one_of,
    repeated,
    sequence,
    structural_tag,
    tag,
)

CHANNEL, MESSAGE, START, CALL = "<|channel|>", "<|message|>", "<|start|>", "<|call|>"
END, RETURN = "<|end|>", "<|return|>"
FINAL = f"{CHANNEL}final{MESSAGE}"
HEADS = (CHANNEL, START, MESSAGE, "to=")  # that a message may begin with
ENDS = markers(END, CALL, RETURN, START)
HEAD_ENDS = markers(MESSAGE)
IS_ANALYSIS = re.compile(re.escape(CHANNEL) + r"\s*analysis\b")
RECIPIENT = re.compile(r"\bto=([^\s<]+)")


class _Harmony:
    name = "gpt-oss"
    special = True

    def used_by(self, template: Template) -> bool:
        return CHANNEL in template.chat_template and MESSAGE in template.chat_template


class HarmonyReasoning(_Harmony):
    begin = ""  # every answer begins with a channel of the model's choice
    end = FINAL

    def parser(self, prompt_end: str) -> Parser:
        return GeneratorParser(lambda reader: _read(reader, Calls(reader, ())))


class HarmonyTools(_Harmony):
    reasons = True

    def parser(self, tools: Sequence[Tool]) -> Parser:
        return GeneratorParser(lambda reader: _read(reader, Calls(reader, tools)))

    def grammar(self, tools: Sequence[Tool], choice: Choice) -> Grammar:
        """Reasoning comes first, so it is part of the language; <|call|> and <|return|> end it."""
        messages = [_message_format(channel) for channel in ("analysis", "commentary")]
        last = [_call_format(tool) for tool in allowed(tools, choice)]
        if choice.kind == "auto":
            last.append(sequence([const(FINAL), TEXT]))
        return structural_tag(sequence([repeated(one_of(messages)), one_of(last)]))


def _message_format(channel: str) -> Format:
    """A message that another one follows."""
    return sequence([tag(f"{CHANNEL}{channel}{MESSAGE}", TEXT, END), const(f"{START}assistant")])


def _call_format(tool: Tool) -> Format:
    head = f"{CHANNEL}commentary to=functions.{tool.name} <|constrain|>json{MESSAGE}"
    return sequence([const(head), json_arguments(tool)])


def _read(reader: Reader, calls: Calls) -> Steps[None]:
    while True:
        outcome = yield from calls.attempt(_message(reader, calls))
        if outcome is not Outcome.WHOLE and (yield from reader.text(Content, ENDS)) == START:
            reader.unread(START)
        if reader.ended and not reader.rest:
            return


def _message(reader: Reader, calls: Calls) -> Steps[None]:
    yield from reader.spaces()
    head = yield from reader.expect(*HEADS)
    if head != MESSAGE:
        rest, _ = yield from reader.until(HEAD_ENDS)
        head += rest
    recipient = RECIPIENT.search(head)
    if recipient is not None:
        yield from _call(reader, calls, recipient[1])
        return
    reader.keep()
    kind = Reasoning if IS_ANALYSIS.search(head) else Content
    if (yield from reader.text(kind, ENDS, begun=True)) == START:
        reader.unread(START)


def _call(reader: Reader, calls: Calls, recipient: str) -> Steps[None]:
    take = calls.begin(recipient.removeprefix("functions."))
    first = yield from reader.spaces()
    if first == "{":
        yield from copy_value(reader, take)
    else:
        take(EMPTY)
    reader.begin()
    yield from reader.spaces()
    yield from reader.expect(CALL, END, RETURN)
