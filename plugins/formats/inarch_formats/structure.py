"""Grammars of calls as structural tags: https://xgrammar.mlc.ai/docs/tutorials/structural_tag.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar
from inarch.parsing import Choice, Tool

Format = dict[str, Any]
MOST_SPACES = 2  # one after the other, within JSON
SHARED = ("$defs", "definitions")  # what the properties of a schema may refer to
PLAIN = {
    *("type", "properties", "required", "additionalProperties", "title", "description"),
    *("$schema", "$id", "$comment", "default", "examples", *SHARED),
}
# Before calls that must come: a model that has just ended its reasoning may be used to it.
LINES: Format = {"type": "regex", "pattern": r"\n{0,2}"}
PYTHON_WORDS = {"boolean": ("True", "False"), "null": ("None",)}


def structural_tag(format: Format) -> Grammar:
    source = json.dumps({"type": "structural_tag", "format": format}, ensure_ascii=False)
    return Grammar(kind="structural_tag", source=source)


def const(text: str) -> Format:
    return {"type": "const_string", "value": text}


def sequence(elements: Sequence[Format]) -> Format:
    return {"type": "sequence", "elements": list(elements)}


def tag(begin: str, content: Format, end: str) -> Format:
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def json_arguments(tool: Tool, style: str = "json") -> Format:
    """The arguments of a tool; white space is bounded, or a model may write nothing else."""
    most = MOST_SPACES if style == "json" else 1
    return {
        "type": "json_schema",
        "json_schema": dict(tool.parameters),
        "style": style,
        "max_whitespace_cnt": most,
    }


def allowed(tools: Sequence[Tool], choice: Choice) -> Sequence[Tool]:
    """The tools that an answer may call."""
    if choice.kind != "named":
        return tools
    return [tool for tool in tools if tool.name == choice.name]


def grammar_of_calls(
    choice: Choice, tags: Sequence[Format], *, triggers: Sequence[str], separator: str
) -> Grammar:
    """Calls that need nothing around them. triggers: the beginnings of tags from which on a text is
    a call, whatever else may be free."""
    one = not choice.parallel or choice.kind == "named"
    if choice.kind == "auto":
        return structural_tag(
            {
                "type": "triggered_tags",
                "triggers": list(triggers),
                "tags": list(tags),
                "stop_after_first": one,
            }
        )
    return structural_tag(sequence([LINES, _separated(tags, separator, one)]))


def grammar_of_sections(
    choice: Choice, tags: Sequence[Format], *, begin: str, end: str, separator: str
) -> Grammar:
    """Calls that stand between `begin` and `end`, in one section of the answer."""
    one = not choice.parallel or choice.kind == "named"
    section = tag(begin, _separated(tags, separator, one), end)
    if choice.kind != "auto":
        return structural_tag(sequence([LINES, section]))
    return structural_tag(
        {
            "type": "triggered_tags",
            "triggers": [begin.strip()],
            "tags": [section],
            "stop_after_first": one,
        }
    )


def _separated(tags: Sequence[Format], separator: str, one: bool) -> Format:
    return {
        "type": "tags_with_separator",
        "tags": list(tags),
        "separator": separator,
        "at_least_one": True,
        "stop_after_first": one,
    }


def keyword_arguments(tool: Tool) -> Format:
    """The arguments of a tool as city="Paris", days=3, in the order of its schema.

    Values are JSON, but for True, False and None. Raises InvalidRequestError if the schema asks for
    more than can be held to so.
    """
    schema = tool.parameters
    if unknown := sorted(set(schema) - PLAIN):
        raise InvalidRequestError(
            f"tool {tool.name}: this model writes calls in Python, where parameters cannot be held"
            f" to {', '.join(unknown)}; describe them by properties and required alone",
            param="tools",
        )
    shared = {key: schema[key] for key in SHARED if key in schema}
    required = schema.get("required", [])
    properties = {**schema.get("properties", {}), **dict.fromkeys(_missing(schema), True)}
    items = [(_keyword(key, value, shared), key in required) for key, value in properties.items()]
    beginnings = []  # one for each property that may come first
    for first, (item, needed) in enumerate(items):
        rest = [_further(*other) for other in items[first + 1 :]]
        beginnings.append(sequence([item, *rest]))
        if needed:
            break
    else:
        beginnings.append(const(""))
    return {"type": "or", "elements": beginnings}


def _missing(schema: Mapping[str, Any]) -> list[str]:
    return [key for key in schema.get("required", []) if key not in schema.get("properties", {})]


def _keyword(key: str, schema: Any, shared: Mapping[str, Any]) -> Format:
    if isinstance(schema, Mapping) and schema.get("type") in PYTHON_WORDS:
        words: Sequence[str] = PYTHON_WORDS[schema["type"]]
        return sequence([const(f"{key}="), {"type": "or", "elements": [*map(const, words)]}])
    if isinstance(schema, Mapping):
        schema = {**shared, **schema}
    value = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": MOST_SPACES}
    return sequence([const(f"{key}="), value])


def _further(item: Format, required: bool) -> Format:
    """An argument that comes after another."""
    further = sequence([const(", "), item])
    return further if required else {"type": "optional", "content": further}
