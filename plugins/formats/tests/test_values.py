"""Bare text becomes JSON of the type that the schema asks for."""

from __future__ import annotations

import pytest

from inarch_formats.values import as_json, types

ROOT = {"$defs": {"size": {"type": "integer"}, "loop": {"$ref": "#/$defs/loop"}}}


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [
        ({"type": "string"}, {"string"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"enum": ["a", 1]}, {"string", "integer", "number"}),
        ({"const": None}, {"null"}),
        ({"anyOf": [{"type": "array"}, {"type": "null"}]}, {"array", "null"}),
        ({"oneOf": [{"type": "boolean"}, {"$ref": "#/$defs/size"}]}, {"boolean", "integer"}),
        ({"allOf": [{"type": ["string", "null"]}, {"type": "string"}]}, {"string"}),
        ({"$ref": "#/$defs/size"}, {"integer"}),
    ],
)
def test_a_schema_tells_the_types_that_it_allows(schema, kinds):
    assert types(schema, ROOT) == kinds


@pytest.mark.parametrize("schema", [True, {}, {"$ref": "#/$defs/loop"}, {"$ref": "#/nowhere"}])
def test_a_schema_that_tells_nothing_allows_any(schema):
    assert len(types(schema, ROOT)) == 7


@pytest.mark.parametrize(
    ("text", "kinds", "expected"),
    [
        ("3", {"integer"}, "3"),
        ("1.50", {"number"}, "1.50"),
        ("3", {"string"}, '"3"'),
        ("3", {"string", "integer"}, "3"),
        ("null", {"string", "null"}, "null"),
        ("null", {"string"}, '"null"'),
        ("True", {"boolean"}, "true"),
        ("None", {"null", "object"}, "null"),
        ('{"a": [1]}', {"object"}, '{"a": [1]}'),
        ("{'a': [True]}", {"object"}, '{"a": [true]}'),
        ('"quoted"', {"string", "null"}, '"\\"quoted\\""'),
        ("three", {"integer"}, '"three"'),
        ("NaN", {"number"}, '"NaN"'),
        ("1e999", {"string"}, '"1e999"'),
        ("[" * 9999, {"array"}, '"' + "[" * 9999 + '"'),
        ("", {"integer"}, '""'),
    ],
)
def test_a_value_is_the_nearest_json_that_its_types_allow(text, kinds, expected):
    assert as_json(text, frozenset(kinds)) == expected
