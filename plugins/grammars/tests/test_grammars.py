"""What engines let through, against other people's readers: jsonschema, re, and brackets counted."""
# ruff: noqa: E501

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from inarch.engine.text.vocabulary import TokenizerVocabulary
from inarch.errors import InvalidRequestError
from inarch.grammar import Compiler, Grammar
from inarch_grammars.forced import Forcing
from inarch_grammars.schema import read_schema

sys.path.insert(0, str(Path(__file__).parent))

from schemas import Author

CHECK = jsonschema.Draft202012Validator.FORMAT_CHECKER


@pytest.mark.parametrize("seed", range(0, 240, 40))
def test_what_a_schema_lets_through_validates(compiler: Compiler, walk, seed: int) -> None:
    """Random walks over random schemas: whatever is not refused is enforced to the letter."""
    compiled = validated = 0
    for number in range(seed, seed + 40):
        schema = Author(number).document()
        try:
            grammar = compiler.compile(Grammar(kind="json_schema", source=json.dumps(schema)))
        except InvalidRequestError:
            continue
        compiled += 1
        validator = jsonschema.Draft202012Validator(schema, format_checker=CHECK)
        for way in range(4):
            text = walk(grammar, number * 10 + way, 150)
            if text is not None:
                validator.validate(json.loads(text))
                validated += 1
    assert compiled >= 5
    assert validated >= 15


LOOSE = [  # passed over by one library or the other
    {"type": "integer", "not": {"const": 3}},
    {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True},
    {"type": "array", "contains": {"const": 1}},
    {"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}},
    {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}},
    {"type": "object", "propertyNames": {"pattern": "^[a-z]$"}, "properties": {"AB": {}}},
    {"oneOf": [{"type": "integer"}, {"type": "integer", "minimum": 5}]},
    {"oneOf": [{"type": "object"}, {"properties": {"a": {}}, "type": "object"}]},
    {"type": "string", "format": "idn-hostname"},
    {"$dynamicRef": "#node"},
    {"$ref": "https://example.com/schema"},
    {"$ref": "#/$defs/none"},
    {"$ref": "#"},
    {"$defs": {"a": {"$anchor": "x", "type": "integer"}}, "$ref": "#x"},
    {"enum": [10**20]},
    {"type": "object", "properties": {"a": {"$id": "inner", "type": "integer"}}},
]


@pytest.mark.parametrize("schema", LOOSE, ids=range(len(LOOSE)))
def test_what_would_be_loosened_is_refused(compiler: Compiler, schema: dict) -> None:
    with pytest.raises(InvalidRequestError, match=r"JSON schema|json schema"):
        compiler.compile(Grammar(kind="json_schema", source=json.dumps(schema)))


MALFORMED = [
    '{"type": 5}',
    '{"required": "a"}',
    '{"properties": []}',
    '{"minLength": -1}',
    "[]",
    "",
    "nul",
]
MALFORMED += [
    '{"enum": []}',
    '{"anyOf": []}',
    '{"items": [{}]}',
    '{"maximum": true}',
    "{" * 5000,
    "[" * 9000,
]
MALFORMED += ['{"items":' * 60 + "{}" + "}" * 60, '{"const": "' + "x" * 300_000 + '"}']


@pytest.mark.parametrize("source", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_schemas_are_refused(source: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_schema(source)


def chain(length: int, last: dict) -> dict:
    """Each definition holds the next one twice."""
    pair = {"type": "object", "required": ["a", "b"], "additionalProperties": False}
    defs = {
        f"d{i}": pair | {"properties": {name: {"$ref": f"#/$defs/d{i + 1}"} for name in "ab"}}
        for i in range(length)
    }
    return {"$ref": "#/$defs/d0", "$defs": defs | {f"d{length}": last}}


ENDLESS = [
    chain(30, {"const": 1}),
    {"type": "array", "minItems": 10_000, "items": {"type": "array", "minItems": 10_000}},
    {"type": "array", "minItems": 1, "items": {"$ref": "#"}},
    {"type": "array", "items": {"$ref": "#/$defs/q"},
     "$defs": {"q": {"type": "object", "properties": {"v": {"$ref": "#/$defs/q"}}, "required": ["v"]}}},
]  # fmt: skip


@pytest.mark.parametrize("schema", ENDLESS, ids=range(len(ENDLESS)))
def test_schemas_whose_values_have_no_end_are_refused(schema: dict) -> None:
    with pytest.raises(InvalidRequestError, match="no value of fewer than"):
        read_schema(json.dumps(schema))


def test_short_values_of_recursive_schemas_are_let_through(compiler: Compiler, walk) -> None:
    tree = {"type": "object", "properties": {"c": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}},
            "required": ["c"], "additionalProperties": False}  # fmt: skip
    for schema in (tree, chain(4, {"const": 1})):
        grammar = compiler.compile(Grammar(kind="json_schema", source=json.dumps(schema)))
        texts = [text for seed in range(6) if (text := walk(grammar, seed)) is not None]
        assert texts
        for text in texts:
            jsonschema.validate(json.loads(text), schema)


def test_options_that_exclude_each_other_are_held_to_one(compiler: Compiler, walk) -> None:
    def tagged(kind: str) -> dict:
        return {"type": "object", "properties": {"kind": {"const": kind}, "n": {"enum": [1, 2]}},
                "required": ["kind", "n"], "additionalProperties": False}  # fmt: skip

    schema = {"oneOf": [tagged("a"), tagged("b"), {"type": "null"}]}
    grammar = compiler.compile(Grammar(kind="json_schema", source=json.dumps(schema)))
    found = {walk(grammar, seed) for seed in range(20)}
    assert len(found) > 2
    for text in found:
        jsonschema.validate(json.loads(text), schema)


REGEXES = [
    "(yes|no), [0-9]{2}",
    "[a-c]+!?",
    "(ab|cd){2,3}",
    "x*y",
    r"\d{4}-\d{2}",
    r"é[^a-z\n]{2}",
    "(?:a|b)c",
    "^ab$",
]


@pytest.mark.parametrize("pattern", REGEXES)
def test_what_a_regex_lets_through_matches_it(compiler: Compiler, walk, pattern: str) -> None:
    grammar = compiler.compile(Grammar(kind="regex", source=pattern))
    texts = [text for seed in range(12) if (text := walk(grammar, seed, 60)) is not None]
    assert len(texts) > 3
    for text in texts:
        assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize("pattern", ["(?=a)a", r"(a)\1", r"\bfoo", "(", "[a", "a^b", r"a\Z"])
def test_regexes_that_cannot_be_enforced_are_refused(compiler: Compiler, pattern: str) -> None:
    with pytest.raises(InvalidRequestError, match="regex"):
        compiler.compile(Grammar(kind="regex", source=pattern))


def balanced(text: str) -> bool:
    """The language of BRACKETS, by counting."""
    depth = 0
    for char in text:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char not in "()xé" or depth < 0:
            return False
    return depth == 0 and text.startswith("(")


BRACKETS = 'root ::= "(" inner ")" # comment\ninner ::= [x\\u00e9]{0,3} | root | root inner'


def test_what_an_ebnf_lets_through_is_of_its_language(compiler: Compiler, walk) -> None:
    grammar = compiler.compile(Grammar(kind="ebnf", source=BRACKETS))
    texts = {text for seed in range(30) if (text := walk(grammar, seed, 80)) is not None}
    assert len(texts) > 5
    assert all(map(balanced, texts))


def test_an_ebnf_without_an_end_costs_nobody_anything(compiler: Compiler, walk) -> None:
    """The library would look for the end of the text that must come next, for ever."""
    grammar = compiler.compile(Grammar(kind="ebnf", source='root ::= "a" root | "b" root'))
    assert walk(grammar, 1, 40) is None


@pytest.mark.parametrize("source", ["root ::= missing", "nonsense", 'other ::= "a"', 'root ::= "a'])
def test_malformed_ebnf_is_refused(compiler: Compiler, source: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"EBNF|ebnf"):
        compiler.compile(Grammar(kind="ebnf", source=source))


WORD = {"enum": ["red", "green"]}


def tag(format: dict) -> Grammar:
    return Grammar(
        kind="structural_tag", source=json.dumps({"type": "structural_tag", "format": format})
    )


def test_structural_tags_are_what_they_say(compiler: Compiler, walk) -> None:
    json_part = {"type": "json_schema", "json_schema": WORD}
    one = {"type": "tag", "begin": "<a>", "content": json_part, "end": "</a>"}
    free = {"type": "tag", "begin": "<b>", "content": {"type": "any_text"}, "end": "</b>"}
    word = '"(red|green)"'
    for format, pattern in [
        (one, f"<a>{word}</a>"),
        ({"type": "tags_with_separator", "tags": [one], "separator": ", ", "at_least_one": True},
         f"<a>{word}</a>(, <a>{word}</a>)*"),
        ({"type": "sequence", "elements": [{"type": "const_string", "value": "x"}, one]}, f"x<a>{word}</a>"),
        ({"type": "or", "elements": [one, {"type": "regex", "pattern": "[0-9]"}]}, f"<a>{word}</a>|[0-9]"),
        ({"type": "optional", "content": one}, f"(<a>{word}</a>)?"),
        ({"type": "triggered_tags", "triggers": ["<a"], "tags": [one]}, f"((?!<a)[^\0])*(<a>{word}</a>((?!<a)[^\0])*)*"),
        (free, "<b>((?!</b>)[^\0])*</b>"),
    ]:  # fmt: skip
        grammar = compiler.compile(tag(format))
        for seed in range(6):
            text = walk(grammar, seed, 120)
            assert text is None or re.fullmatch(pattern, text), (format, text)


def test_special_tokens_in_tags_are_their_ids(
    compiler: Compiler, vocabulary: TokenizerVocabulary
) -> None:
    json_part = {"type": "json_schema", "json_schema": WORD}
    format = {
        "type": "tag",
        "begin": "<|im_start|>call:",
        "content": json_part,
        "end": "<|im_start|>",
    }
    matcher = compiler.compile(tag(format)).matcher()
    bitmask = np.zeros(64, dtype=np.int32)
    matcher.fill(bitmask)
    assert np.flatnonzero(bitmask).tolist() == [0]
    assert bitmask[0] == 1 << vocabulary.special["<|im_start|>"]
    for token in vocabulary.encode('<|im_start|>call:"red"<|im_start|>'):
        assert matcher.accept(token)


@pytest.mark.parametrize(
    "source",
    ["{}", '{"format": {}}', '{"structures": 1, "triggers": []}',
     '{"format": {"type": "tag", "begin": "a", "end": "b", "content": {"type": "json_schema", "json_schema": {"not": {}}}}}',
     '{"format": {"type": "unheard of"}}'],
)  # fmt: skip
def test_tags_that_cannot_be_enforced_are_refused(compiler: Compiler, source: str) -> None:
    with pytest.raises(InvalidRequestError):
        compiler.compile(Grammar(kind="structural_tag", source=source))


def test_white_space_in_json_is_bounded(compiler: Compiler, walk) -> None:
    grammar = compiler.compile(Grammar(kind="json_object"))
    for seed in range(10):
        text = walk(grammar, seed, 120)
        if text is not None:
            assert isinstance(json.loads(text), dict)
            outside = re.sub(r'"(\\.|[^"\\])*"', '""', text)
            assert not re.search(r"\s\s|[\n\t\r]", outside)


def test_forced_texts_are_cut_as_the_tokenizer_does(vocabulary: TokenizerVocabulary) -> None:
    forcing = Forcing(vocabulary)
    text = '{"name": "Paris is the capital", "age": 70}'
    whole = list(vocabulary.encode(text))
    for end in range(1, len(text)):
        sure = list(forcing.tokens(text[:end]))
        assert whole[: len(sure)] == sure, "whatever comes behind it"
    assert len(forcing.tokens(text)) > len(whole) // 2


TAG_AROUND = {"type": "tag", "begin": "<v>", "end": "</v>"}
VALUES = ["°C", "°G", "é1", "a\u007fb", "\x01a", "\\xb0C", "日本", "😀f", 'a"\n']


def test_values_within_tags_are_those_of_the_schema(compiler: Compiler, walk) -> None:
    schema = {"type": ["string", "null"], "enum": [*VALUES, 7]}
    part = {"type": "json_schema", "json_schema": schema}
    tag = {"type": "structural_tag", "format": {**TAG_AROUND, "content": part}}
    grammar = compiler.compile(Grammar(kind="structural_tag", source=json.dumps(tag)))
    found = {walk(grammar, seed) for seed in range(60)}
    assert {json.loads(text.removeprefix("<v>").removesuffix("</v>")) for text in found} == set(
        VALUES
    )
