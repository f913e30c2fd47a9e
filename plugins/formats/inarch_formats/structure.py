"""Grammars of calls as structural tags: https://xgrammar.mlc.ai/docs/tutorials/structural_tag.html.

Markers are plain text here. Those that are special tokens of a model, its grammar engine knows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inarch.grammar import Grammar
from inarch.parsing import Choice, Tool

Format = dict[str, Any]


def structural_tag(format: Format) -> Grammar:
    source = json.dumps({"type": "structural_tag", "format": format}, ensure_ascii=False)
    return Grammar(kind="structural_tag", source=source)


# ---- parts ----


def const(text: str) -> Format:
    return {"type": "const_string", "value": text}


def sequence(elements: Sequence[Format]) -> Format:
    return {"type": "sequence", "elements": list(elements)}


def one_of(elements: Sequence[Format]) -> Format:
    return {"type": "or", "elements": list(elements)} if len(elements) > 1 else elements[0]


def optional(content: Format) -> Format:
    return {"type": "optional", "content": content}


def repeated(content: Format) -> Format:
    """Any number of times, none as well."""
    return {"type": "star", "content": content}


def tag(begin: str, content: Format, end: str) -> Format:
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def json_of(schema: Any) -> Format:
    return {"type": "json_schema", "json_schema": schema}


def json_arguments(tool: Tool) -> Format:
    return json_of(dict(tool.parameters))


TEXT: Format = {"type": "any_text"}
# Before calls that must come: a model that has just ended its reasoning may be used to it.
LINES: Format = {"type": "regex", "pattern": r"\n{0,2}"}


# ---- the calls of an answer ----


def allowed(tools: Sequence[Tool], choice: Choice) -> Sequence[Tool]:
    """The tools that an answer may call."""
    if choice.kind != "named":
        return tools
    return [tool for tool in tools if tool.name == choice.name]


def separated(tags: Sequence[Format], separator: str, choice: Choice) -> Format:
    """One call, or several of them, as the caller wants it."""
    return {
        "type": "tags_with_separator",
        "tags": list(tags),
        "separator": separator,
        "at_least_one": True,
        "stop_after_first": only_one(choice),
    }


def only_one(choice: Choice) -> bool:
    return not choice.parallel or choice.kind == "named"


def grammar_of_calls(
    choice: Choice, tags: Sequence[Format], *, triggers: Sequence[str], separator: str
) -> Grammar:
    """Calls that need nothing around them. triggers: the beginnings of tags from which on a text is
    a call, whatever else may be free."""
    if choice.kind != "auto":
        return structural_tag(sequence([LINES, separated(tags, separator, choice)]))
    return structural_tag(
        {
            "type": "triggered_tags",
            "triggers": list(triggers),
            "tags": list(tags),
            "stop_after_first": only_one(choice),
        }
    )


def grammar_of_sections(
    choice: Choice, tags: Sequence[Format], *, begin: str, end: str, separator: str
) -> Grammar:
    """Calls that stand between `begin` and `end`, in one section of the answer."""
    section = tag(begin, separated(tags, separator, choice), end)
    return grammar_of_calls(choice, [section], triggers=[begin.strip()], separator="")
