"""Grammars in llguidance's dialect of Lark, made of structural tags and of GBNF."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from inarch_grammars import tags
from inarch_grammars.refusal import refuse
from inarch_grammars.schema import Schema, reduced

# White space as json.dumps writes it: models that may write more of it may not stop.
JSON_OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": True,  # reduced schemas have no oneOf whose options overlap
}
PLAIN_JSON = {"style": "json", "any_order": False, "excludes": []}
REPEATED = {"optional": "?", "star": "*", "plus": "+"}
TEXT = r"/(?s:.*)/"


def with_options(schema: Schema) -> dict[str, Any]:
    """A reduced schema that says how its JSON is written."""
    if isinstance(schema, bool):
        if not schema:
            raise refuse("the JSON schema", "false allows nothing")
        schema = {}
    return {**schema, "x-guidance": JSON_OPTIONS}


def from_tags(source: str, special: Mapping[str, int]) -> str:
    """A structural tag as a grammar whose special tokens are the ids that their texts have."""
    tag = tags.parse(source)
    writer = TagWriter(special)
    tags.read(source, lambda item, path: item)  # checks its form
    start = writer.item(tag["format"], "#/format", last=True)
    return "%llguidance {}\n" + "\n".join([f"start: {start}", *writer.rules])


ESCAPED = re.compile(r"\\\\|\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")


def from_gbnf(source: str) -> str:
    """A GBNF grammar, whose start symbol is `root`."""
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return f"%llguidance {{}}\n{gbnf_to_lark(ESCAPED.sub(_character, source))}"
    except Exception as error:  # the library raises nothing more precise
        raise refuse("the EBNF grammar", str(error)) from None


def _character(escaped: re.Match[str]) -> str:
    """What an escape with a number means: the library's own reading of these is wrong."""
    digits = escaped[1] or escaped[2] or escaped[3]
    if digits is None:
        return escaped[0]
    character = chr(int(digits, 16))
    if character.isprintable() and character not in '"\\[]-^/':
        return character
    raise refuse("the EBNF grammar", f"llguidance cannot have {escaped[0]}")


class TagWriter:
    """Writes one rule for each part that has a name, in the order of their making."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self.rules: list[str] = []
        self._special = special
        texts = sorted(special, key=len, reverse=True)
        self._special_text = re.compile("|".join(map(re.escape, texts)) or r"(?!)")

    def item(self, item: dict[str, Any], path: str, *, last: bool) -> str:
        """An expression for a part; `last`: nothing comes behind it."""
        match item["type"]:
            case "const_string":
                return self.literal(_string(item, "value", path))
            case "json_schema" | "regex" | "any_text" as kind:
                return self._leaf(kind, item, path, last=last)
            case "sequence":
                return self._sequence(item, path, last=last)
            case "or":
                return f"({' | '.join(self._items(item, 'elements', path, last=last))})"
            case "tag":
                return self._tag(item, path, last=last)
            case "triggered_tags" if last and not item.get("excludes"):
                return self._triggered(item, path)
            case "tags_with_separator":
                return self._separated(item, path)
            case kind if kind in REPEATED:
                return f"({self._content(item, path, last=False)}){REPEATED[kind]}"
        raise _cannot(item, path)

    def _leaf(self, kind: str, item: dict[str, Any], path: str, *, last: bool) -> str:
        if kind == "regex":
            return self._terminal(regex(_string(item, "pattern", path)))
        if kind == "json_schema" and all(item.get(k, v) == v for k, v in PLAIN_JSON.items()):
            schema = with_options(reduced(item.get("json_schema")))
            return self._rule(f"%json {json.dumps(schema)}")
        if kind == "any_text" and last and not item.keys() - {"type"}:
            return self._terminal(TEXT)
        raise _cannot(item, path)

    def literal(self, text: str) -> str:
        """A text as it is, with special tokens in it as tokens."""
        parts = []
        for part in re.split(f"({self._special_text.pattern})", text):
            if part in self._special:
                parts.append(f"<[{self._special[part]}]>")
            elif part:
                parts.append(_quoted(part))
        return " ".join(parts) or '""'

    def _content(self, item: dict[str, Any], path: str, *, last: bool) -> str:
        content = item.get("content")
        if not isinstance(content, dict):
            raise refuse(f"the structural tag at {path}", "content is needed")
        return self.item(content, f"{path}/content", last=last)

    def _items(self, item: dict[str, Any], name: str, path: str, *, last: bool) -> list[str]:
        many = item.get(name)
        if not isinstance(many, list) or not many:
            raise refuse(f"the structural tag at {path}", f"{name} is a list that is not empty")
        return [self.item(one, f"{path}/{name}/{i}", last=last) for i, one in enumerate(many)]

    def _sequence(self, item: dict[str, Any], path: str, *, last: bool) -> str:
        many = item.get("elements")
        if not isinstance(many, list) or not many:
            raise refuse(f"the structural tag at {path}", "elements is a list that is not empty")
        parts = [
            self.item(one, f"{path}/elements/{i}", last=last and i == len(many) - 1)
            for i, one in enumerate(many)
        ]
        return " ".join(parts)

    def _tag(self, item: dict[str, Any], path: str, *, last: bool, begun: str = "") -> str:
        """begun: what of its beginning has been written."""
        begin = _string(item, "begin", path).removeprefix(begun)
        ends = item.get("end")
        listed = [ends] if isinstance(ends, str) else ends
        if not isinstance(listed, list) or not all(isinstance(end, str) for end in listed):
            raise refuse(f"the structural tag at {path}", "end is a text, or a list of texts")
        content = item.get("content")
        head = f"{self.literal(begin)} " if begin else ""
        if isinstance(content, dict) and content["type"] == "any_text" and any(listed):
            return head + self._text_until([end for end in listed if end], path)
        body = self._content(item, path, last=last and not any(listed))
        tail = " | ".join(self.literal(end) for end in listed)
        return f"{head}{body} ({tail})" if any(listed) else head + body

    def _text_until(self, ends: list[str], path: str) -> str:
        """Free text up to the first of some ends."""
        options = []
        for end in ends:
            if self._special_text.fullmatch(end):
                options.append(f"{self._terminal(TEXT)} {self.literal(end)}")
            elif self._special_text.search(end):
                raise refuse(f"the structural tag at {path}", "text up to a mixed end")
            else:
                options.append(self._rule(f"{TEXT} {_quoted(end)}", lazy=True))
        return f"({' | '.join(options)})"

    def _triggered(self, item: dict[str, Any], path: str) -> str:
        """Free text in which each trigger begins one of its tags."""
        options = []
        many, triggers = item.get("tags"), item.get("triggers")
        if not isinstance(many, list) or not many or not isinstance(triggers, list):
            raise refuse(f"the structural tag at {path}", "triggers and tags are lists, not empty")
        for i, one in enumerate(many):
            begin = _string(one, "begin", f"{path}/tags/{i}")
            trigger = next(
                (t for t in triggers if isinstance(t, str) and begin.startswith(t)), None
            )
            if not trigger:
                raise refuse(
                    f"the structural tag at {path}/tags/{i}", "no trigger begins its begin"
                )
            rest = self._tag(one, f"{path}/tags/{i}", last=False, begun=trigger)
            options.append(f"{self._text_until([trigger], path)} {rest}")
        once = f"({' | '.join(options)})"
        if item.get("stop_after_first"):
            return once if item.get("at_least_one") else f"({once} | {self._terminal(TEXT)})"
        return f"{once}{'+' if item.get('at_least_one') else '*'} {self._terminal(TEXT)}"

    def _separated(self, item: dict[str, Any], path: str) -> str:
        one = f"({' | '.join(self._items(item, 'tags', path, last=False))})"
        more = f"({self.literal(_string(item, 'separator', path))} {one})*"
        many = one if item.get("stop_after_first") else f"{one} {more}"
        return many if item.get("at_least_one") else f"({many})?"

    def _rule(self, body: str, *, lazy: bool = False) -> str:
        name = f"part_{len(self.rules)}"
        self.rules.append(f"{name}{'[lazy]' if lazy else ''}: {body}")
        return name

    def _terminal(self, body: str) -> str:
        name = f"PART_{len(self.rules)}"
        self.rules.append(f"{name}: {body}")
        return name


def _cannot(item: dict[str, Any], path: str) -> Exception:
    return refuse(
        f"the structural tag at {path}", f"llguidance cannot have this {item['type']} here"
    )


def _string(item: dict[str, Any], name: str, path: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise refuse(f"the structural tag at {path}", f"{name} is a text")
    return value


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def regex(pattern: str) -> str:
    """A regular expression as a terminal; digits are those of ASCII."""
    from llguidance import regex_to_lark

    return f"/{regex_to_lark(pattern, 'd')}/"
