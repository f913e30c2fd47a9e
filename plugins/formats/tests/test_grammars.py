"""Grammars of formats, held against a real engine: any answer that they allow is read back into calls
whose arguments validate against the schemas of their tools.

The engine walks at random over a vocabulary of bytes, where every marker is plain text.
"""

from __future__ import annotations

import json
import random

import jsonschema
import pytest

from inarch.errors import InvalidRequestError
from inarch.parsing import Choice, Tool, ToolFormat
from inarch_formats.plugin import inarch_tool_formats

from .reading import Answer, read

xgrammar = pytest.importorskip("xgrammar")

FORMATS: dict[str, ToolFormat] = {format.name: format for format in inarch_tool_formats()}
SCHEMA = {
    "type": "object",
    "$defs": {"point": {"type": "object", "properties": {"x": {"type": "integer"}},
                        "required": ["x"], "additionalProperties": False}},
    "properties": {
        "city": {"type": "string", "maxLength": 8},  # or a walk would never end
        "unit": {"type": "string", "enum": ["°C", "°F"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "metric": {"type": "boolean"},
        "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]$"},
        "near": {"$ref": "#/$defs/point"},
        "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "maxItems": 2},
        "note": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
    "required": ["city", "days", "near"],
    "additionalProperties": False,
}  # fmt: skip
OPTIONAL = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}, "c": {"type": "null"}},
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = (
    Tool("get_weather", SCHEMA),
    Tool("get_time", NOTHING),
    Tool("get", OPTIONAL),
)
SCHEMAS = {tool.name: tool.parameters for tool in TOOLS}
STOP = 256
LIKELY = set(b'"}]<>/,:){(')  # what tends to bring a walk to its end


@pytest.fixture(scope="module")
def compiler():
    vocabulary = [bytes([byte]) for byte in range(256)] + [b""]
    info = xgrammar.TokenizerInfo(
        vocabulary, vocab_type=xgrammar.VocabType.RAW, vocab_size=257, stop_token_ids=[STOP]
    )
    return xgrammar.GrammarCompiler(info, max_threads=1)


class Walk:
    """An answer under way."""

    def __init__(self, compiler, format: ToolFormat, choice: Choice, seed: int) -> None:
        grammar = format.grammar(TOOLS, choice)
        assert grammar.kind == "structural_tag"
        self.matcher = xgrammar.GrammarMatcher(compiler.compile_structural_tag(grammar.source))
        self.mask = xgrammar.allocate_token_bitmask(1, 257)
        self.random = random.Random(seed)
        self.text = b""

    def allowed(self) -> list[int]:
        if self.matcher.is_terminated():
            return []
        self.matcher.fill_next_token_bitmask(self.mask)
        words = self.mask[0].numpy().view("uint32")
        return [i for i in range(257) if words[i // 32] >> (i % 32) & 1]

    def write(self, text: str) -> None:
        for byte in text.encode():
            assert self.matcher.accept_token(byte), f"{text!r} is refused behind {self.text!r}"
            self.text += bytes([byte])

    def finish(self, most: int = 4000) -> str:
        """Go on until the grammar lets the answer end, which it must."""
        for _ in range(most):
            allowed = self.allowed()
            if not allowed or (STOP in allowed and self.random.random() < 0.5):
                return self.text.decode()
            likely = [token for token in allowed if token in LIKELY]
            plain = [token for token in allowed if 32 <= token < 127 or token == 10]
            plain = plain if len(allowed) > 8 and plain else allowed
            pool = likely if likely and self.random.random() < 0.5 else plain
            token = self.random.choice([t for t in pool if t != STOP] or [STOP])
            if token == STOP:
                return self.text.decode()
            assert self.matcher.accept_token(token)
            self.text += bytes([token])
        raise AssertionError(f"no end after {self.text[:300]!r}")


def check(format: ToolFormat, text: str) -> Answer:
    answer = read(format.parser(TOOLS), text)
    for name, arguments in answer.calls:
        jsonschema.validate(json.loads(arguments), SCHEMAS[name])
    return answer


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("parallel", [True, False])
def test_required_gives_calls_and_nothing_else(compiler, name, parallel):
    counts = set()
    for seed in range(12):
        walk = Walk(compiler, FORMATS[name], Choice("required", parallel=parallel), seed)
        if name == "gpt-oss":  # which may say beforehand what it is about to do
            walk.write(BEGINNINGS[name])
        answer = check(FORMATS[name], walk.finish())
        counts.add(len(answer.calls))
        assert answer.content.strip() == ""
    one_at_most = not parallel or name == "gpt-oss"
    assert counts == {1} if one_at_most else min(counts) == 1 < max(counts)


@pytest.mark.parametrize("name", FORMATS)
def test_a_named_tool_is_called_once_and_no_other_is(compiler, name):
    for seed in range(6):
        walk = Walk(compiler, FORMATS[name], Choice("named", "get_weather"), seed)
        if name == "gpt-oss":
            walk.write(BEGINNINGS[name])
        answer = check(FORMATS[name], walk.finish())
        assert [tool for tool, _ in answer.calls] == ["get_weather"]


BEGINNINGS = {  # of a call, up to where its grammar must hold it
    "hermes": "<tool_call>",
    "json": '{"name"',
    "llama3_json": '{"name"',
    "mistral": "[TOOL_CALLS]",
    "kimi_k2": "<|tool_calls_section_begin|>",
    "deepseek_v3": "<｜tool▁calls▁begin｜>",
    "deepseek_v31": "<｜tool▁calls▁begin｜>",
    "qwen3_coder": "<tool_call>",
    "minimax_m2": "<minimax:tool_call>",
    "glm45": "<tool_call>",
    "pythonic": "[get_weather(",
    "gpt-oss": "<|channel|>commentary to=",
}
FREE = "Well, <b>7</b> < 8; {a} [b] (c)\n\nété <t {"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("parallel", [True, False])
def test_auto_leaves_text_free_and_holds_a_call_once_it_has_begun(compiler, name, parallel):
    free = (
        f"<|channel|>commentary<|message|>{FREE}<|end|><|start|>assistant"
        if name == "gpt-oss"
        else FREE
    )
    for seed in range(6):
        walk = Walk(compiler, FORMATS[name], Choice("auto", parallel=parallel), seed)
        walk.write(free + BEGINNINGS[name])
        assert STOP not in walk.allowed()
        answer = check(FORMATS[name], walk.finish())
        assert answer.calls
        assert answer.content.startswith(FREE.strip())
        if not parallel:
            assert len(answer.calls) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_auto_may_end_without_a_call(compiler, name):
    walk = Walk(compiler, FORMATS[name], Choice("auto"), 0)
    walk.write(f"<|channel|>final<|message|>{FREE}" if name == "gpt-oss" else FREE)
    assert STOP in walk.allowed()


SPACES = ("{", "{ ", '{"city":', '{"city": ')  # where JSON may have white space, and has some


@pytest.mark.parametrize("beginning", SPACES)
def test_white_space_within_arguments_is_bounded(compiler, beginning):
    walk = Walk(compiler, FORMATS["hermes"], Choice("named", "get_weather"), 0)
    walk.write('<tool_call>\n{"name": "get_weather", "arguments": ' + beginning)
    for _ in range(4):
        if ord(" ") in walk.allowed():
            walk.write(" ")
    assert ord(" ") not in walk.allowed()


def test_python_calls_refuse_schemas_that_they_cannot_be_held_to():
    tool = Tool("f", {"type": "object", "properties": {}, "minProperties": 1})
    with pytest.raises(InvalidRequestError, match=r"tool f: .*minProperties"):
        FORMATS["pythonic"].grammar([tool], Choice("required"))
