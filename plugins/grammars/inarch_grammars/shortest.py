"""How short the shortest value of a schema is, as JSON text.

None is finite if each value has to contain another: a model held to such a schema would write until it
is cut off. And no text that must come next is longer than the shortest that may come, so that this
also bounds how long a library takes to find it.
"""

from __future__ import annotations

import json
import math
from typing import Any

SHORTEST = {"string": 2, "object": 2, "array": 2, "boolean": 4, "null": 4}
BETWEEN = 2  # ", " and ": "


def longest_shortest(root: Any) -> float:
    """Characters of the shortest value of a reduced schema, or of a schema that it refers to if that
    is more. References are valid. inf: there is none.

    The least solution: no reference has a value until one is found (as in Bellman, 1958).
    """
    lengths = dict.fromkeys(_references(root), math.inf)
    changed = True
    while changed:
        changed = False
        for ref, known in lengths.items():
            if (found := _shortest(_target(root, ref), lengths)) < known:
                lengths[ref] = found
                changed = True
    return max(_shortest(root, lengths), *lengths.values(), 0)


def _references(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(_references, node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    return own.union(*(_references(v) for k, v in node.items() if k not in ("const", "enum")))


def _shortest(node: Any, lengths: dict[str, float]) -> float:
    if not isinstance(node, dict):
        return 1 if node else math.inf
    if "$ref" in node:
        return lengths[node["$ref"]]
    if "const" in node or "enum" in node:
        return min(len(json.dumps(value)) for value in node.get("enum", [node.get("const")]))
    least = 1.0
    for keyword in ("anyOf", "oneOf"):
        if keyword in node:
            least = max(least, min(_shortest(one, lengths) for one in node[keyword]))
    least = max(least, *(_shortest(one, lengths) for one in node.get("allOf", ())), 0)
    kind = node.get("type")
    if kind == "object":
        return max(least, _shortest_object(node, lengths))
    if kind == "array":
        return max(least, _shortest_array(node, lengths))
    own = SHORTEST.get(kind, 1) if isinstance(kind, str) else 1
    return max(least, own + (node.get("minLength", 0) if kind == "string" else 0))


def _shortest_object(node: dict[str, Any], lengths: dict[str, float]) -> float:
    properties = node.get("properties", {})
    total = 2.0
    for name in node.get("required", ()):
        value = _shortest(properties[name], lengths) if name in properties else 1
        total += len(name) + 2 + 2 * BETWEEN + value
    return total


def _shortest_array(node: dict[str, Any], lengths: dict[str, float]) -> float:
    least = int(node.get("minItems", 0))
    first = node.get("prefixItems", [])[:least]
    total = 2.0 + sum(BETWEEN + _shortest(one, lengths) for one in first)
    if more := least - len(first):
        total += more * (BETWEEN + _shortest(node.get("items", True), lengths))
    return total


def _target(root: Any, ref: str) -> Any:
    found = root
    for part in ref.split("/")[1:]:
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found
