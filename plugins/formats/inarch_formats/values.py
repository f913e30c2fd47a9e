"""Values that a model wrote as bare text, as JSON of the type that the tool's schema asks for.

Formats that look like markup write <parameter=days>3</parameter>: whether that is the number or the
string, only the schema knows. What fits no type that it allows stays a string.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from inarch.parsing import Tool
from inarch_formats.json_text import Take
from inarch_formats.reader import CutOffError, Reader, Steps

ALL = frozenset(("string", "number", "integer", "boolean", "null", "array", "object"))
LIMITS = ("enum", "const", "pattern", "format", "minLength", "maxLength")  # of strings
DEEPEST = 16  # references that refer to references


def types(schema: Any, root: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """JSON types that a schema allows. `root`: the schema that its references point into."""
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return ALL
    if "type" in schema:
        kinds = schema["type"]
        return frozenset([kinds] if isinstance(kinds, str) else kinds) & ALL
    if "$ref" in schema:
        return types(target(schema["$ref"], root), root, depth + 1)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return frozenset(kind for value in values for kind in _types_of(value))
    for union in ("anyOf", "oneOf"):
        if union in schema:
            parts = [types(part, root, depth + 1) for part in schema[union]]
            return frozenset().union(*parts)
    found = ALL
    for part in schema.get("allOf", ()):
        found &= types(part, root, depth + 1)
    return found


def target(reference: str, root: Mapping[str, Any]) -> Any:
    """What a reference within the schema points at; True, which allows anything, if it dangles."""
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        if not isinstance(found, Mapping) or part not in found:
            return True
        found = found[part]
    return found


def _types_of(value: Any) -> tuple[str, ...]:
    match value:
        case None:
            return ("null",)
        case bool():
            return ("boolean",)
        case int():
            return ("integer", "number")
        case float():
            return ("number",)
        case str():
            return ("string",)
        case list():
            return ("array",)
    return ("object",)


def copy_raw(
    reader: Reader, stops: re.Pattern[str], tool: Tool, key: str, take: Take, *, trim: bool
) -> Steps[None]:
    """Consume a value and the marker behind it; `take` is given it as JSON.

    Strings go on as they come, anything else once it is complete. trim: a line break at either end
    belongs to the markers.
    """
    schema = tool.parameters.get("properties", {}).get(key, True)
    kinds = types(schema, tool.parameters)
    if kinds == {"string"} and not (isinstance(schema, Mapping) and any(map(schema.get, LIMITS))):
        yield from _copy_string(reader, stops, take, trim)
        return
    pieces: list[str] = []
    try:
        yield from reader.until(stops, pieces.append)
    except CutOffError:
        take("".join(pieces).strip())
        raise
    take(as_json("".join(pieces).strip(), kinds))


def _copy_string(reader: Reader, stops: re.Pattern[str], take: Take, trim: bool) -> Steps[None]:
    held, first = "", trim

    def escape(text: str) -> None:
        nonlocal held, first
        if first:
            text, first = text.removeprefix("\n"), False
        text, held = held + text, ""
        if trim and text.endswith("\n"):
            text, held = text[:-1], "\n"
        take(quoted(text)[1:-1])

    take('"')
    yield from reader.until(stops, escape)
    take('"')


def as_json(text: str, kinds: frozenset[str]) -> str:
    """The text itself if it is JSON of one of these types, or else the nearest that is."""
    value = _read_json(text)
    if value is not _NONE and not isinstance(value, str) and kinds & set(_types_of(value)):
        return text
    if not isinstance(value := _read_python(text), str) and kinds & set(_types_of(value)):
        return json.dumps(value, ensure_ascii=False)
    return quoted(text)


_NONE = object()


def _read_json(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NONE


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _read_python(text: str) -> object:
    """Models now and then write True, or an object in single quotes."""
    try:
        value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    return value


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
