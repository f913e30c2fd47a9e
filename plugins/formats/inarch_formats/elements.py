"""Grammars of arguments that stand one by one, instead of in a JSON object.

They are those that the schema declares, in its order: where it allows others too, a model is kept from
writing them. Raises InvalidRequestError where a schema asks for more than such arguments can be held to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inarch.errors import InvalidRequestError
from inarch.parsing import Tool
from inarch_formats.structure import TEXT, Format, const, json_of, one_of, optional, sequence, tag
from inarch_formats.values import DEEPEST, target, types

SHARED = ("$defs", "definitions")  # what properties may refer to
# Of a schema for all arguments; "format" and the like say nothing that must hold.
KNOWN = {
    *("type", "properties", "required", "additionalProperties", "title", "description"),
    *("$schema", "$id", "$comment", "default", "examples", *SHARED),
}
PYTHON_WORDS = {"boolean": ("True", "False"), "null": ("None",)}
LENGTHS = ("minLength", "maxLength")


@dataclass(frozen=True)
class Property:
    name: str
    schema: Any
    required: bool


def properties(tool: Tool) -> list[Property]:
    """What a tool takes, in the order of its schema."""
    schema = tool.parameters
    if unknown := sorted(set(schema) - KNOWN):
        raise refusal(tool, f"its parameters cannot be held to {', '.join(unknown)}")
    required = schema.get("required", [])
    declared = {**dict.fromkeys(required, True), **schema.get("properties", {})}
    ordered = [*schema.get("properties", {}), *(key for key in required if key in declared)]
    return [Property(key, declared[key], key in required) for key in dict.fromkeys(ordered)]


def refusal(tool: Tool, reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"tool {tool.name}: this model does not write arguments as JSON, so that {reason}; describe"
        " them by properties and required alone",
        param="tools",
    )


def with_shared(tool: Tool, schema: Any) -> Any:
    """A part of a tool's schema that can stand alone."""
    if not isinstance(schema, Mapping):
        return schema
    shared = {key: tool.parameters[key] for key in SHARED if key in tool.parameters}
    return {**shared, **schema}


def one_by_one(tool: Tool, element: Callable[[Property], Format]) -> Format:
    """Arguments with nothing between them."""
    found = [(element(one), one.required) for one in properties(tool)]
    return sequence([const(""), *(e if required else optional(e) for e, required in found)])


# ---- Python's keyword arguments ----


def keyword_arguments(tool: Tool) -> Format:
    """city="Paris", days=3: values are JSON, but for True, False and None."""
    items = [(_keyword(tool, one), one.required) for one in properties(tool)]
    beginnings = []  # one for each argument that may come first
    for first, (item, required) in enumerate(items):
        rest = [_further(*other) for other in items[first + 1 :]]
        beginnings.append(sequence([item, *rest]))
        if required:
            return one_of(beginnings)
    return one_of([*beginnings, const("")])


def _keyword(tool: Tool, one: Property) -> Format:
    value = json_of(with_shared(tool, one.schema))
    if isinstance(one.schema, Mapping):
        words: Sequence[str] = PYTHON_WORDS.get(str(one.schema.get("type")), ())
        value = one_of([*map(const, words)]) if words else value
    return sequence([const(f"{one.name}="), value])


def _further(item: Format, required: bool) -> Format:
    """An argument that comes after another."""
    further = sequence([const(", "), item])
    return further if required else optional(further)


# ---- bare text between two markers ----


@dataclass(frozen=True)
class Bare:
    """A value between two markers: a string as it is, anything else as JSON.

    line: what comes between the markers and a value, where the value itself does not say.
    """

    tool: Tool
    begin: str
    end: str
    line: str

    def value(self, schema: Any, depth: int = 0) -> Format:
        if "string" not in types(schema, self.tool.parameters):
            return self._around(json_of(with_shared(self.tool, schema)))
        if not isinstance(schema, Mapping) or depth > DEEPEST:
            return self._text()
        if "$ref" in schema:
            return self.value(target(schema["$ref"], self.tool.parameters), depth + 1)
        if "enum" in schema or "const" in schema:
            values = schema["enum"] if "enum" in schema else [schema["const"]]
            return self._around(one_of([const(_bare(value)) for value in values]))
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return one_of([self.value(part, depth + 1) for part in schema[union]])
        if schema.get("type") == "string" and (pattern := _pattern(self.tool, schema)):
            return self._around({"type": "regex", "pattern": pattern})
        return self._text()

    def _text(self) -> Format:
        return tag(self.begin, TEXT, self.end)

    def _around(self, value: Format) -> Format:
        return sequence([const(self.begin + self.line), value, const(self.line + self.end)])


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _pattern(tool: Tool, schema: Mapping[str, Any]) -> str:
    """What a string is held to as a regular expression of the whole of it; "" if to nothing."""
    lengths = [schema.get(key) for key in LENGTHS]
    if "pattern" not in schema:
        low, high = lengths
        if low is None and high is None:
            return ""
        # An angle bracket could be that of the marker which ends the value.
        return f"[^<]{{{low or 0},{'' if high is None else high}}}"
    if any(length is not None for length in lengths):
        raise refusal(tool, "a string cannot be held to a pattern and a length at once")
    text: str = schema["pattern"]
    begun, ended = text.startswith("^"), text.endswith("$") and not text.endswith("\\$")
    body = text[begun : len(text) - ended]
    return f"{'' if begun else '[^<]*'}({body}){'' if ended else '[^<]*'}"
