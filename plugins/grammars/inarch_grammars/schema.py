"""What a JSON schema asks for, and whether an engine enforces it: one walk, one table an engine.

Engines read the part of JSON Schema that they know and tend to pass over the rest. So a schema is first
brought down to keywords that assert something (annotations, and formats that the standard does not
know, assert nothing), then checked for what is wrong with it for everyone, and then against the table
of the engine. The tables were found by experiment; tests/test_schemas.py repeats them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from inarch_grammars.disjoint import overlap
from inarch_grammars.refusal import check_size, refuse
from inarch_grammars.shortest import longest_shortest

Schema = dict[str, Any] | bool
LONGEST = 20_000  # characters that a value must at least have
DEEPEST = 48  # levels of subschemas
LARGEST = 2**53  # beyond which a number of JSON need not be what it says

# Every keyword that asserts something, with what its value must be.
COUNT, NUMBER, SCHEMA, SCHEMAS, NAMED = (
    "a count",
    "a number",
    "a schema",
    "schemas",
    "named schemas",
)
KEYWORDS: dict[str, str] = {
    "type": "a type",
    "const": "anything",
    "enum": "a list",
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), COUNT),
    **dict.fromkeys(("minProperties", "maxProperties", "minContains", "maxContains"), COUNT),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), NUMBER),
    "multipleOf": NUMBER,
    **dict.fromkeys(("pattern", "format", "$ref", "$dynamicRef", "$recursiveRef"), "a string"),
    "uniqueItems": "a boolean",
    "required": "names",
    **dict.fromkeys(("items", "additionalItems", "unevaluatedItems", "contains"), SCHEMA),
    **dict.fromkeys(("additionalProperties", "unevaluatedProperties", "propertyNames"), SCHEMA),
    **dict.fromkeys(("not", "if", "then", "else"), SCHEMA),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), SCHEMAS),
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas"), NAMED),
    **dict.fromkeys(("dependentRequired", "dependencies"), "an object"),
}
DEFINITIONS = ("$defs", "definitions")  # hold schemas, and assert nothing
TYPES = ("null", "boolean", "object", "array", "number", "integer", "string")
JSON_TYPES = {dict: "object", list: "array", str: "string", type(None): "null"}
FORMATS = frozenset(  # of the standard; any other is an annotation
    ("date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname")
)
FORMATS |= {"ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template"}
FORMATS |= {"json-pointer", "relative-json-pointer", "regex"}


def read_schema(source: str) -> Schema:
    """A schema without what asserts nothing. Raises InvalidRequestError if it is malformed."""
    check_size(source)
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise refuse("the JSON schema is not JSON", str(error)) from None
    return reduced(schema)


def reduced(schema: Any) -> Schema:
    """The same for a schema that has been parsed."""
    found = _reduced(schema, "#", 0)
    for path, node in nodes(found):
        if isinstance(node, dict):
            _check_refs(found, node, path)
    if longest_shortest(found) > LONGEST:
        raise refuse("the JSON schema", f"no value of fewer than {LONGEST} characters matches it")
    for path, node in nodes(found):
        if isinstance(node, dict) and (why := overlap(found, node.get("oneOf", ()))):
            raise refuse(_at(path), f"a value may match several options of oneOf: {why}; use anyOf")
    return found


def _at(path: str) -> str:
    return f"the JSON schema at {path}"


def _reduced(schema: Any, path: str, depth: int) -> Schema:
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict):
        raise refuse(
            _at(path), f"a schema is an object or a boolean, not {json.dumps(schema)[:80]}"
        )
    if depth > DEEPEST:
        raise refuse(_at(path), f"schemas are nested more than {DEEPEST} levels deep")
    if depth and "$id" in schema:
        raise refuse(
            _at(path), "$id within a schema, to which references would relate, is not followed"
        )
    kept: dict[str, Any] = {}
    for keyword, value in schema.items():
        kind = _kind(keyword)
        if kind is None or (keyword == "format" and value not in FORMATS):
            continue
        where = f"{path}/{keyword}"
        if not _is(kind, value):
            raise refuse(_at(where), f"{kind} is needed, not {json.dumps(value)[:80]}")
        if keyword in ("const", "enum") and not _safe(value):
            raise refuse(_at(where), f"a number is beyond ±{LARGEST}")
        kept[keyword] = _within(kind, value, where, depth + 1)
    return _without_type(kept)


def _without_type(node: dict[str, Any]) -> dict[str, Any]:
    """A type beside the values that it leaves asserts nothing, and no engine need know it there."""
    values = [node["const"]] if "const" in node else node.get("enum")
    if values is None or "type" not in node:
        return node
    fitting = [value for value in values if _has_type(value, node["type"])]
    if not fitting:
        return node  # which nothing matches: that is for the engine to say
    less = {keyword: value for keyword, value in node.items() if keyword != "type"}
    return less if "const" in node else {**less, "enum": fitting}


def _has_type(value: Any, types: str | list[str]) -> bool:
    match value:
        case bool():
            names = {"boolean"}
        case int():
            names = {"integer", "number"}
        case float():
            names = {"number", "integer"} if value.is_integer() else {"number"}
        case _:
            names = {JSON_TYPES[type(value)]}
    return bool(names & {types} if isinstance(types, str) else names & set(types))


def _kind(keyword: str) -> str | None:
    return NAMED if keyword in DEFINITIONS else KEYWORDS.get(keyword)


def _within(kind: str, value: Any, path: str, depth: int) -> Any:
    """A keyword's value, with the schemas in it reduced."""
    if kind == SCHEMA:
        return _reduced(value, path, depth)
    if kind == SCHEMAS:
        return [_reduced(one, f"{path}/{i}", depth) for i, one in enumerate(value)]
    if kind == NAMED:
        return {name: _reduced(one, f"{path}/{name}", depth) for name, one in value.items()}
    return value


def _is(kind: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    number = number and abs(value) <= LARGEST
    match kind:
        case "a type":
            many = value if isinstance(value, list) else [value]
            return bool(many) and all(one in TYPES for one in many)
        case "a list":
            return isinstance(value, list) and bool(value)
        case "a count":
            return number and value >= 0 and value == int(value)
        case "a number":
            return number
        case "a string":
            return isinstance(value, str)
        case "a boolean":
            return isinstance(value, bool)
        case "names":
            return isinstance(value, list) and all(isinstance(one, str) for one in value)
        case "schemas":
            return isinstance(value, list) and bool(value)
        case "named schemas" | "an object":
            return isinstance(value, dict)
    return True


def _safe(value: Any) -> bool:
    """Whether a value's numbers are the same for everyone who reads them."""
    if isinstance(value, dict):
        return all(map(_safe, value.values()))
    if isinstance(value, list):
        return all(map(_safe, value))
    return not isinstance(value, int | float) or abs(value) <= LARGEST


def nodes(schema: Schema, path: str = "#") -> Iterator[tuple[str, Schema]]:
    """Every schema in a reduced schema, with where it is."""
    yield path, schema
    if isinstance(schema, bool):
        return
    for keyword, value in schema.items():
        kind = _kind(keyword)
        where = f"{path}/{keyword}"
        if kind == SCHEMA:
            yield from nodes(value, where)
        elif kind == SCHEMAS:
            for i, one in enumerate(value):
                yield from nodes(one, f"{where}/{i}")
        elif kind == NAMED:
            for name, one in value.items():
                yield from nodes(one, f"{where}/{name}")


def resolve(root: Schema, ref: str) -> Schema | None:
    """What a reference of the form #/a/b names; None if there is no such schema."""
    found: Any = root
    for part in ref.split("/")[1:]:
        if not isinstance(found, Mapping | list):
            return None
        try:
            found = found[int(part)] if isinstance(found, list) else found[part]
        except (KeyError, ValueError, IndexError):
            return None
    return found if isinstance(found, dict | bool) else None


def _check_refs(root: Schema, node: dict[str, Any], path: str) -> None:
    """References lead to schemas of this document, and do not go round in circles."""
    seen: list[str] = []
    target: Schema | None = node
    while isinstance(target, dict) and "$ref" in target:
        ref = target["$ref"]
        if not ref.startswith("#"):
            raise refuse(_at(path), f"$ref {ref!r} leads out of the schema, which is not followed")
        if ref != "#" and (not ref.startswith("#/") or "~" in ref or "%" in ref):
            raise refuse(_at(path), f"$ref {ref!r} is not of the form #/$defs/name")
        if ref in seen:
            raise refuse(_at(path), f"$ref {ref!r} leads back to itself")
        seen.append(ref)
        target = resolve(root, ref)
        if target is None:
            raise refuse(_at(path), f"$ref {ref!r} leads nowhere")
