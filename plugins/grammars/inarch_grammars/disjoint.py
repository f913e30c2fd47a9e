"""Whether the options of oneOf exclude each other: then it is anyOf, which engines can enforce."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any


def overlap(root: Any, options: Sequence[Any]) -> str:
    """Which two options may match the same value, or cannot be told apart; "" if none do."""
    known = [_follow(root, option) for option in options]
    for (i, a), (j, b) in itertools.combinations(enumerate(known), 2):
        if not _disjoint(root, a, b):
            return f"the options {i} and {j} are not surely different"
    return ""


def _follow(root: Any, schema: Any) -> Any:
    for _ in range(16):
        if not isinstance(schema, dict) or set(schema) != {"$ref"}:
            break
        found = root
        for part in schema["$ref"].split("/")[1:]:
            found = found.get(part) if isinstance(found, dict) else None
        schema = found
    return schema


def _disjoint(root: Any, a: Any, b: Any) -> bool:
    if not isinstance(a, dict) or not isinstance(b, dict):
        return False
    ours, theirs = _values(a), _values(b)
    if ours is not None and theirs is not None:
        return not ours & theirs
    if not _types(a) & _types(b):
        return True
    both = set(a.get("required", ())) & set(b.get("required", ()))
    return _types(a) == _types(b) == {"object"} and any(
        _disjoint(root, *(_follow(root, s.get("properties", {}).get(name)) for s in (a, b)))
        for name in both
    )


def _values(schema: dict[str, Any]) -> set[str] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    # 1 and 1.0 are one value of JSON.
    return None if values is None else {json.dumps(_plain(v), sort_keys=True) for v in values}


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _types(schema: dict[str, Any]) -> set[str]:
    every = {"null", "boolean", "object", "array", "number", "string"}
    if (values := _values(schema)) is not None:
        names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
        return {names.get(type(json.loads(v)), "number") for v in values}
    types = schema.get("type", sorted(every))
    listed = [types] if isinstance(types, str) else types
    return {"number" if one == "integer" else one for one in listed}
