"""Whether a value can ever be complete: a list whose every element needs such a list never is.

A model held to such a schema would write until it is cut off.
"""

from __future__ import annotations

from typing import Any


def endable(root: Any) -> bool:
    """Whether some finite value may match a reduced schema whose references are valid.

    The least solution: no reference leads to an end until it is found that it does.
    """
    ends = dict.fromkeys(_references(root), False)
    changed = True
    while changed:
        changed = False
        for ref, known in ends.items():
            if not known and _endable(_target(root, ref), ends):
                ends[ref] = changed = True
    return _endable(root, ends)


def _references(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(_references, node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    # Values of const and enum may look like references; others than the schema's do no harm.
    return own.union(*(_references(v) for k, v in node.items() if k not in ("const", "enum")))


def _endable(node: Any, ends: dict[str, bool]) -> bool:
    if not isinstance(node, dict):
        return node is not False
    if "$ref" in node:
        return ends[node["$ref"]]
    for keyword in ("anyOf", "oneOf"):
        if keyword in node and not any(_endable(one, ends) for one in node[keyword]):
            return False
    if not all(_endable(one, ends) for one in node.get("allOf", ())):
        return False
    if node.get("type") == "object":
        properties = node.get("properties", {})
        required = (properties[name] for name in node.get("required", ()) if name in properties)
        return all(_endable(one, ends) for one in required)
    if node.get("type") == "array" and (least := int(node.get("minItems", 0))):
        first = node.get("prefixItems", [])
        more = [node.get("items", True)] if least > len(first) else []
        return all(_endable(one, ends) for one in [*first[:least], *more])
    return True


def _target(root: Any, ref: str) -> Any:
    found = root
    for part in ref.split("/")[1:]:
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found
