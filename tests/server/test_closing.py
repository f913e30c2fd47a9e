"""Objects of tools and of strict formats have the properties that are declared, and no others."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest

from inarch_server.answering.closing import closed

from .harness import Server, messages
from .talking import talker

CHAT = "/v1/chat/completions"
N = {"type": "integer"}
A = {"type": "object", "properties": {"a": N}}
# A schema, and values that must remain or become valid or invalid.
CASES: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("an object", A, [{"a": 1}, {}], [{"a": 1, "b": 2}]),
    ("none at all", {"type": "object", "properties": {}}, [{}], [{"b": 1}]),
    ("in a property", {"properties": {"in": A}}, [{"in": {}}], [{"in": {"b": 1}}]),
    ("in a list", {"type": "array", "items": A}, [[{"a": 1}]], [[{"b": 1}]]),
    ("in options", {"anyOf": [A, {"type": "null"}]}, [{"a": 1}, None], [{"b": 1}]),
    ("in a definition", {"$ref": "#/$defs/x", "$defs": {"x": A}}, [{"a": 1}], [{"b": 1}]),
    ("in other properties", {"additionalProperties": A}, [{"x": {}}], [{"x": {"b": 1}}]),
    ("a pattern", {**A, "patternProperties": {"^x": N}}, [{"xy": 1}], [{"b": 1}]),
    ("open by its own word", {**A, "additionalProperties": True}, [{"b": 1}], []),
    ("open to some", {**A, "additionalProperties": {"type": "null"}}, [{"b": None}], [{"b": 1}]),
    ("of free form", {"type": "object"}, [{"b": 1}], [5]),
    ("required beyond", {**A, "required": ["b"]}, [{"b": 1}], [{}]),
    ("in two places", {"allOf": [A, {"properties": {"b": N}}]}, [{"a": 1, "b": 2}], []),
    ("beside options", {**A, "anyOf": [{"properties": {"b": N}}]}, [{"a": 1, "b": 2}], []),
    (
        "a property of that name",
        {"properties": {"properties": A, "items": A}},
        [{"properties": {"a": 1}, "items": {}}],
        [{"properties": {"b": 1}}, {"items": {"b": 1}}, {"b": 1}],
    ),
    ("a value of that form", {"properties": {"x": {"const": A}}}, [{"x": A}], [{"x": closed(A)}]),
]


@pytest.mark.parametrize(
    ("schema", "good", "bad"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_only_declared_properties_fit(schema: Any, good: list[Any], bad: list[Any]) -> None:
    before = copy.deepcopy(schema)
    validator = jsonschema.Draft202012Validator(closed(schema))
    assert schema == before
    assert all(validator.is_valid(value) for value in good)
    assert not any(validator.is_valid(value) for value in bad)


def test_a_tool_is_held_to_its_closed_schema_and_told_as_it_was_sent() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": A}}
    body = {"messages": messages("Hi"), "tools": [tool], "tool_choice": "required"}
    with Server(talker("{}")) as server:
        assert server.post(CHAT, body).status == 200
        prompt, params = server.engine.asked[-1][:2]
    assert json.dumps(closed(A)) in params.grammar.source
    assert "additionalProperties" not in bytes(prompt).decode()


@pytest.mark.parametrize("strict", [True, False, None])
@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_a_format_is_closed_if_it_is_strict(path: str, strict: bool | None) -> None:
    said = {"name": "x", "schema": A, "strict": strict}
    if path == CHAT:
        format = {"type": "json_schema", "json_schema": said}
        body = {"messages": messages("Hi"), "response_format": format}
    else:
        body = {"input": "Hi", "text": {"format": {"type": "json_schema", **said}}}
    with Server(talker("{}")) as server:
        assert server.post(path, body).status == 200
        grammar = server.engine.asked[-1][1].grammar
    assert json.loads(grammar.source) == (closed(A) if strict else A)
