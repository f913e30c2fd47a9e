"""Structural tags: text that is free in places and held to a schema in others, as JSON.

The format is that of xgrammar's documentation, {"type": "structural_tag", "format": {...}}. The older
one, {"structures": [{"begin", "schema", "end"}], "triggers": [...]}, becomes triggered tags.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from inarch_grammars.refusal import check_size, refuse

Item = dict[str, Any]
DEEPEST = 64
PARTS = ("content", "format")
LISTS = ("elements", "tags")


def read(source: str, change: Callable[[Item, str], Item]) -> Item:
    """A structural tag in the newer format, each part of it changed by `change(part, path)`.

    Raises InvalidRequestError if it is malformed as far as can be told without knowing all parts.
    """
    tag = parse(source)
    return {"type": "structural_tag", "format": _walk(tag["format"], "#/format", change, 0)}


def parse(source: str) -> Item:
    """A structural tag in the newer format."""
    check_size(source)
    try:
        tag = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise refuse("the structural tag is not JSON", str(error)) from None
    if isinstance(tag, dict) and "structures" in tag:
        return _modern(tag)
    if not isinstance(tag, dict) or not isinstance(tag.get("format"), dict):
        raise refuse("the structural tag", 'it is an object with a "format", which is an object')
    return tag


def kinds(source: str) -> set[str]:
    """The types of all parts of a structural tag."""
    found: set[str] = set()

    def note(item: Item, path: str) -> Item:
        found.add(item["type"])
        return item

    read(source, note)
    return found


def names_any(source: str, texts: Iterable[str]) -> bool:
    """Whether a structural tag may contain any of some texts, outside of its schemas or in them."""
    literal = json.dumps(parse(source), ensure_ascii=False)
    return any(json.dumps(text, ensure_ascii=False)[1:-1] in literal for text in texts)


def _modern(tag: Item) -> Item:
    structures, triggers = tag["structures"], tag.get("triggers")
    if not isinstance(structures, list) or not isinstance(triggers, list) or not triggers:
        raise refuse("the structural tag", "structures and triggers are lists, triggers not empty")
    found = []
    for i, one in enumerate(structures):
        if not isinstance(one, dict) or not {"begin", "end"} <= one.keys():
            raise refuse(f"the structural tag at #/structures/{i}", "needs begin, schema and end")
        schema = one.get("schema", {})
        content = {"type": "json_schema", "json_schema": schema}
        found.append({"type": "tag", "begin": one["begin"], "content": content, "end": one["end"]})
    return {"format": {"type": "triggered_tags", "triggers": triggers, "tags": found}}


def _walk(item: Any, path: str, change: Callable[[Item, str], Item], depth: int) -> Item:
    if not isinstance(item, dict) or not isinstance(item.get("type"), str):
        raise refuse(f"the structural tag at {path}", 'an object with a "type" is needed')
    if depth > DEEPEST:
        raise refuse(f"the structural tag at {path}", f"more than {DEEPEST} levels deep")
    found = dict(item)
    for name in PARTS:
        if isinstance(found.get(name), dict):
            found[name] = _walk(found[name], f"{path}/{name}", change, depth + 1)
    for name in LISTS:
        if isinstance(found.get(name), list):
            parts = enumerate(found[name])
            found[name] = [_walk(one, f"{path}/{name}/{i}", change, depth + 1) for i, one in parts]
    return change(found, path)
