"""Grammars of calls as structural tags: https://xgrammar.mlc.ai/docs/tutorials/structural_tag.html."""

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


def allowed(tools: Sequence[Tool], choice: Choice) -> Sequence[Tool]:
    """The tools that an answer may call."""
    if choice.kind != "named":
        return tools
    return [tool for tool in tools if tool.name == choice.name]


def tagged_calls(
    tools: Sequence[Tool], choice: Choice, *, trigger: str, begin: str, end: str, separator: str
) -> Grammar:
    """Calls that stand for themselves: `begin`, with %s for the name, JSON arguments, `end`."""
    tags = [
        {
            "type": "tag",
            "begin": begin.replace("%s", tool.name),
            "content": {"type": "json_schema", "json_schema": dict(tool.parameters)},
            "end": end,
        }
        for tool in allowed(tools, choice)
    ]
    if choice.kind == "auto":
        return structural_tag(
            {
                "type": "triggered_tags",
                "triggers": [trigger],
                "tags": tags,
                "stop_after_first": not choice.parallel,
            }
        )
    return structural_tag(
        {
            "type": "tags_with_separator",
            "tags": tags,
            "separator": separator,
            "at_least_one": True,
            "stop_after_first": not choice.parallel or choice.kind == "named",
        }
    )
