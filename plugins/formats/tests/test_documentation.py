"""The format that docs/plugins.md shows works as the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from inarch.parsing import Choice, Template, ToolFormat

from .reading import TOOLS, read

PAGE = Path(__file__).parents[3] / "docs" / "plugins.md"


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def acme(blocks) -> ToolFormat:
    module = SimpleNamespace()
    exec(blocks[0], module.__dict__)
    (format,) = module.inarch_tool_formats()
    assert isinstance(format, ToolFormat)
    return format


def test_the_format_is_recognised_and_reads_its_calls(acme):
    (shown,) = re.findall(r"^    (Let me see.*)$", PAGE.read_text(), re.MULTILINE)
    assert acme.used_by(Template("acme", shown))
    answer = read(acme.parser(TOOLS), shown)
    assert answer.content == "Let me see."
    assert answer.calls == [("get_weather", '{"city": "Paris"}')]


def test_what_is_no_call_is_content(acme):
    text = "<call:rm_rf>{}</call> <call:"
    assert read(acme.parser(TOOLS), text).content == text


def test_its_grammar_names_every_tool(acme):
    grammar = acme.grammar(TOOLS, Choice("required"))
    assert [f"<call:{tool.name}>" in json.dumps(grammar.source) for tool in TOOLS] == [True, True]


def test_its_way_to_think_is_one_line(blocks):
    format = eval(blocks[1].splitlines()[-1], exec_names(blocks[1]))
    assert read(format.parser(""), "<ponder>So.</ponder>Yes.").reasoning == "So."


def exec_names(source: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(source, names)
    return names
