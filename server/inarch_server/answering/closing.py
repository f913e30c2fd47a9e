"""Schemas whose objects have the properties that they declare, and no others.

JSON Schema lets an object have any further properties unless it is told otherwise, and few authors of
tools tell. Their functions take what they declare: a model that invents an argument breaks the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where the properties of one object are described in several places, no place knows all of them.
BESIDE = {"$ref", "allOf", "anyOf", "oneOf", "if", "then", "else", "not", "dependentSchemas"}
SAID = {"additionalProperties", "unevaluatedProperties"}
ONE = ("items", "contains", "additionalProperties")
MANY = ("anyOf", "oneOf", "prefixItems", "items", "allOf")
NAMED = ("properties", "patternProperties", "$defs", "definitions")


def closed(schema: Any) -> Any:
    """The schema, with additionalProperties false wherever properties are declared and nothing is said
    about others. As it is if any object in it is described in several places."""
    return schema if _composed(schema) else _closed(schema)


def _composed(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    several = isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1
    return (
        several
        or ("properties" in schema and bool(BESIDE & schema.keys()))
        or any(_composed(part) for part in _parts(schema))
    )


def _parts(schema: Mapping[str, Any]) -> list[Any]:
    found = [schema[keyword] for keyword in ONE if keyword in schema]
    for keyword in MANY:
        if isinstance(schema.get(keyword), list):
            found += schema[keyword]
    for keyword in NAMED:
        if isinstance(schema.get(keyword), Mapping):
            found += schema[keyword].values()
    return found


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    found = dict(schema)
    for keyword in ONE:
        if keyword in found:
            found[keyword] = _closed(found[keyword])
    for keyword in MANY:
        if isinstance(found.get(keyword), list):
            found[keyword] = [_closed(part) for part in found[keyword]]
    for keyword in NAMED:
        if isinstance(found.get(keyword), Mapping):
            found[keyword] = {name: _closed(part) for name, part in found[keyword].items()}
    return found | _told(found)


def _told(schema: Mapping[str, Any]) -> dict[str, bool]:
    declared, required = schema.get("properties"), schema.get("required", ())
    if not isinstance(declared, Mapping) or SAID & schema.keys():
        return {}
    undeclared = isinstance(required, list) and not set(map(str, required)) <= declared.keys()
    return {} if undeclared else {"additionalProperties": False}
