"""The xgrammar engine (github.com/mlc-ai/xgrammar): masks in microseconds, compiled ahead.

It passes over what it does not know of a schema or of a regular expression, and writes some of what it
does know otherwise than the standard asks. Such grammars are refused here.
"""

from __future__ import annotations

import importlib.util
import json
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inarch.grammar import Compiled, Compiler, Grammar, Kind, Matcher, Vocabulary
from inarch_grammars import regex, tags
from inarch_grammars.forced import ForcedMatcher, Forcing
from inarch_grammars.refusal import check_size, refuse
from inarch_grammars.schema import Schema, nodes, read_schema, reduced

if TYPE_CHECKING:
    import xgrammar

MOST_PROPERTIES = 200  # they are compiled one with another
MOST_VALUES = 1000  # of an enum: they are compiled one by one
MOST_COUNT = 10_000  # of items that are counted
# The form of a schema, told by one of its keywords or its type -> what else it may have.
RANGE = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
FORMS: dict[str, set[str]] = {
    "$ref": set(),
    "const": {"type"},
    "enum": {"type"},
    "anyOf": set(),
    "oneOf": set(),
    "allOf": set(),
    "null": set(),
    "boolean": set(),
    "string": {"format"},  # with lengths, what must be escaped in JSON is not
    "integer": RANGE,
    "number": RANGE,
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties", "maxProperties"},
}
FORMATS = frozenset({"date", "date-time", "email", "ipv4", "ipv6", "uuid"})
DEFINITIONS = {"$defs", "definitions"}
NAMES = {"json_object": "JSON schema", "json_schema": "JSON schema", "regex": "regex"}
NAMES |= {"ebnf": "EBNF grammar", "structural_tag": "structural tag"}
ANY_OBJECT = json.dumps({"type": "object"})
# As the library writes "°"; it reads any hexadecimal letters behind it as part of the number.
TWO_DIGITS = re.compile(r"\\\\|\\x([0-9a-f]{2})")


class XgrammarEngine:
    name = "xgrammar"
    kinds: frozenset[Kind] = frozenset(
        {"json_object", "json_schema", "regex", "ebnf", "structural_tag"}
    )

    def missing(self) -> str:
        return "" if importlib.util.find_spec("xgrammar") else "`pip install xgrammar` first"

    def open(self, vocabulary: Vocabulary) -> Compiler:
        return XgrammarCompiler(vocabulary)


class XgrammarCompiler:
    def __init__(self, vocabulary: Vocabulary) -> None:
        import xgrammar

        self._library = xgrammar
        self._vocabulary = vocabulary
        self._forcing = Forcing(vocabulary)
        self._plain = self._open(vocabulary.pieces)
        self._opening = threading.Lock()
        self._spelled: xgrammar.GrammarCompiler | None = None

    def compile(self, grammar: Grammar) -> Compiled:
        check_size(grammar.source)
        compiler = self._plain
        if grammar.kind == "structural_tag" and tags.names_any(
            grammar.source, self._vocabulary.special
        ):
            compiler = self._with_special_tokens()
        compiled = self._compile(compiler, grammar)
        return XgrammarCompiled(compiled, self, bounded=_bounded(grammar))

    def matcher(self, compiled: xgrammar.CompiledGrammar, *, bounded: bool) -> Matcher:
        automaton = XgrammarAutomaton(self._library.GrammarMatcher(compiled), bounded=bounded)
        return ForcedMatcher(automaton, self._forcing)

    def _open(self, pieces: Sequence[bytes]) -> xgrammar.GrammarCompiler:
        library = self._library
        info = library.TokenizerInfo(
            list(pieces), library.VocabType.RAW,
            vocab_size=self._vocabulary.size, stop_token_ids=list(self._vocabulary.stop_ids),
        )  # fmt: skip
        return library.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def _with_special_tokens(self) -> xgrammar.GrammarCompiler:
        """For grammars that name special tokens: there they are spelled as their text."""
        with self._opening:
            if self._spelled is None:
                pieces = list(self._vocabulary.pieces)
                for text, token in self._vocabulary.special.items():
                    if token not in self._vocabulary.stop_ids and token < len(pieces):
                        pieces[token] = text.encode()
                self._spelled = self._open(pieces)
            return self._spelled

    def _compile(
        self, compiler: xgrammar.GrammarCompiler, grammar: Grammar
    ) -> xgrammar.CompiledGrammar:
        build: Any
        options: dict[str, Any] = {}
        match grammar.kind:
            case "json_object" | "json_schema":
                schema = ANY_OBJECT if grammar.kind == "json_object" else grammar.source
                text = enforceable(read_schema(schema))
                build, options = compiler.compile_json_schema, {"any_whitespace": False}
            case "regex":
                regex.check(grammar.source)
                text, build = grammar.source, compiler.compile_regex
            case "ebnf":
                text, build = grammar.source, compiler.compile_grammar
            case "structural_tag":
                text = json.dumps(tags.read(grammar.source, self._as_grammar))
                build = compiler.compile_structural_tag
        try:
            compiled: xgrammar.CompiledGrammar = build(text, **options)
        except Exception as error:  # the library raises several kinds, RuntimeError among them
            raise refuse(f"the {NAMES[grammar.kind]}", _message(error)) from None
        return compiled

    def _as_grammar(self, item: dict[str, Any], path: str) -> dict[str, Any]:
        """A part of a structural tag, as the library should see it."""
        if item["type"] == "regex":
            regex.check(str(item.get("pattern")))
        if item["type"] != "json_schema":
            return item
        schema = enforceable(reduced(item.get("json_schema")))
        if item.get("style", "json") != "json":
            return item
        try:
            ebnf = self._library.Grammar.from_json_schema(schema, any_whitespace=False)
        except Exception as error:
            raise refuse(f"the structural tag at {path}", _message(error)) from None
        return {"type": "grammar", "grammar": TWO_DIGITS.sub(_four_digits, str(ebnf))}


class XgrammarCompiled:
    def __init__(
        self, compiled: xgrammar.CompiledGrammar, compiler: XgrammarCompiler, *, bounded: bool
    ) -> None:
        self._compiled, self._compiler, self._bounded = compiled, compiler, bounded

    def matcher(self) -> Matcher:
        return self._compiler.matcher(self._compiled, bounded=self._bounded)


class XgrammarAutomaton:
    """See inarch_grammars.forced.Automaton."""

    def __init__(self, matcher: xgrammar.GrammarMatcher, *, bounded: bool) -> None:
        self._matcher = matcher
        self._bounded = bounded

    def fill(self, bitmask: np.ndarray) -> None:
        self._matcher.fill_next_token_bitmask(bitmask[None])

    def accept(self, token: int) -> bool:
        return bool(self._matcher.accept_token(token))

    def acceptable(self, tokens: Sequence[int]) -> int:
        count = 0
        while count < len(tokens) and self._matcher.accept_token(tokens[count]):
            count += 1
        self._matcher.rollback(count)
        return count

    def text(self) -> str:
        if not self._bounded or self._matcher.is_terminated():
            return ""
        try:
            return str(self._matcher.find_jump_forward_string())
        except UnicodeDecodeError:  # it begins within a character
            return ""

    @property
    def finished(self) -> bool:
        return bool(self._matcher.is_terminated())


def _bounded(grammar: Grammar) -> bool:
    """Whether a text that must come next is surely short: the library seeks its end, for ever if there
    is none, as in `root ::= "a" root`. Schemas and regular expressions have been checked."""
    if grammar.kind != "structural_tag":
        return grammar.kind != "ebnf"
    return not tags.kinds(grammar.source) & {"grammar", "repeat"}


def _four_digits(escaped: re.Match[str]) -> str:
    return f"\\u00{escaped[1]}" if escaped[1] else escaped[0]


def _message(error: Exception) -> str:
    """What the library says, without the time and the place in its own source."""
    first = str(error).strip().splitlines() or [type(error).__name__]
    return first[0].split(": ", 1)[-1] if first[0].startswith("[") else first[0]


def enforceable(schema: Schema) -> str:
    """A reduced schema as JSON text. Raises InvalidRequestError if xgrammar would not enforce it."""
    for path, node in nodes(schema):
        if isinstance(node, dict) and (why := _not_enforced(node)):
            raise refuse(f"the JSON schema at {path}", f"xgrammar does not enforce {why}")
    return json.dumps(schema)


def _not_enforced(node: dict[str, Any]) -> str:
    keywords = node.keys() - DEFINITIONS
    if not keywords:
        return ""
    form = next((name for name in FORMS if name in node), None) or node.get("type")
    if isinstance(form, list):
        return "several types beside other keywords" if keywords != {"type"} else ""
    if form is None:
        return f"{', '.join(sorted(keywords))} without a type"
    if others := keywords - {form, "type"} - FORMS[form]:
        return f"{', '.join(sorted(others))} beside {form}"
    if "type" in keywords and form not in ("const", "enum") and form != node["type"]:
        return f"type beside {form}"
    return _detail(form, node)


def _detail(form: str, node: dict[str, Any]) -> str:
    counts = [node[k] for k in ("minItems", "maxItems", "maxProperties") if k in node]
    if counts and max(counts) > MOST_COUNT:
        return f"counts above {MOST_COUNT}"
    if form in ("const", "enum") and "type" in node:
        return f"type beside {form}"
    if len(node.get("enum", ())) > MOST_VALUES:
        return f"an enum of more than {MOST_VALUES} values in time"
    if len(node.get("allOf", ())) > 1:
        return "allOf with several schemas"
    if form == "string" and node.get("format", "date") not in FORMATS:
        return f"format {node['format']}"
    return _detail_of_object(node) if form == "object" else ""


def _detail_of_object(node: dict[str, Any]) -> str:
    properties = node.get("properties", {})
    if undeclared := [name for name in node.get("required", ()) if name not in properties]:
        return f"required property {undeclared[0]!r}, which is not among the properties"
    if len(properties) > MOST_PROPERTIES:
        return f"an object of more than {MOST_PROPERTIES} properties in time"
    if properties and node.get("additionalProperties", False) is not False:
        return "additionalProperties beside properties"
    return ""
