"""Grammars of formats, held against real engines: any answer that they allow is read back into calls
whose arguments validate against the schemas of their tools.

Answers are walks at random over a vocabulary of bytes and of those markers that are special tokens.
"""

from __future__ import annotations

import json
import random
import re
from typing import NamedTuple

import jsonschema
import numpy as np
import pytest

from inarch.errors import InvalidRequestError
from inarch.grammar import Compiler
from inarch.parsing import Choice, Tool, ToolFormat
from inarch_formats.plugin import inarch_tool_formats
from inarch_grammars.plugin import inarch_grammar_engines

from .reading import Answer, read

FORMATS: dict[str, ToolFormat] = {format.name: format for format in inarch_tool_formats()}
SCHEMA = {
    "type": "object",
    "$defs": {"point": {"type": "object", "properties": {"x": {"type": "integer"}},
                        "required": ["x"], "additionalProperties": False}},
    "properties": {
        "city": {"enum": ["Paris", "Rome <3", "}"]},  # a walk through free text has no end
        "unit": {"type": "string", "enum": ["°C", "°F"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "metric": {"type": "boolean"},
        "near": {"$ref": "#/$defs/point"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
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
LIMITED = {**SCHEMA["properties"], "city": {"type": "string", "maxLength": 8},
           "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]$"}}  # fmt: skip
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = {
    engine: (Tool("get_weather", schema), Tool("get_time", NOTHING), Tool("get", OPTIONAL))
    for engine, schema in {
        "xgrammar": SCHEMA,  # its engine refuses limits of strings
        "llguidance": {**SCHEMA, "properties": LIMITED},
    }.items()
}
LIKELY = set(b'"}]<>/,:){(')  # what tends to bring a walk to its end
SPECIAL = (
    *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<|channel|>", "<|message|>"),
    *("<|start|>", "<|end|>", "<|constrain|>", "<|tool_calls_section_begin|>"),
    *("<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>"),
    *("<|tool_call_end|>", "<tool_call>", "</tool_call>", "<stop>"),
)
TEXTS = [*(bytes([byte]) for byte in range(256)), *(text.encode() for text in SPECIAL)]
STOP = len(TEXTS) - 1


class Bytes:
    """See inarch.grammar.Vocabulary."""

    size = len(TEXTS)
    pieces = tuple(TEXTS[:256]) + (b"",) * len(SPECIAL)
    special = {text: 256 + i for i, text in enumerate(SPECIAL)}  # noqa: RUF012
    stop_ids = (STOP,)

    def encode(self, text: str) -> list[int]:
        parts = re.split(f"({'|'.join(map(re.escape, SPECIAL))})", text)
        return [
            token
            for part in parts
            for token in ([self.special[part]] if part in self.special else part.encode())
        ]


class Opened(NamedTuple):
    name: str
    compiler: Compiler


@pytest.fixture(scope="module", params=["xgrammar", "llguidance"])
def engine(request):
    pytest.importorskip(request.param)
    (found,) = [one for one in inarch_grammar_engines() if one.name == request.param]
    return Opened(request.param, found.open(Bytes()))


class Walk:
    """An answer under way."""

    def __init__(self, engine: Opened, format: ToolFormat, choice: Choice, seed: int) -> None:
        self.tools = TOOLS[engine.name]
        self.format = format
        self.matcher = engine.compiler.compile(format.grammar(self.tools, choice)).matcher()
        self.mask = np.zeros((Bytes.size + 31) // 32, np.int32)
        self.random = random.Random(seed)
        self.text = b""

    def allowed(self) -> list[int]:
        if self.matcher.finished:
            return [STOP]
        self.matcher.fill(self.mask)
        bits = np.unpackbits(self.mask.view(np.uint8), bitorder="little")[: Bytes.size]
        return np.flatnonzero(bits).tolist()

    def accept(self, token: int) -> None:
        assert self.matcher.accept(token), f"{TEXTS[token]!r} is refused behind {self.text!r}"
        self.text += TEXTS[token]

    def write(self, text: str) -> None:
        for token in Bytes().encode(text):
            self.accept(token)

    def finish(self, most: int = 4000) -> str:
        """Go on until the grammar lets the answer end, which it must."""
        for _ in range(most):
            allowed = self.allowed()
            if STOP in allowed and (len(allowed) == 1 or self.random.random() < 0.5):
                return self.text.decode()
            self.accept(self._choice([token for token in allowed if token != STOP]))
        raise AssertionError(f"no end after {self.text[:300]!r}")

    def answer(self) -> Answer:
        """The answer at its end, its arguments checked."""
        text = self.finish()
        answer = read(self.format.parser(self.tools), text)
        schemas = {tool.name: tool.parameters for tool in self.tools}
        for name, arguments in answer.calls:
            jsonschema.validate(json.loads(arguments), schemas[name])
        return answer

    def _choice(self, allowed: list[int]) -> int:
        likely = [token for token in allowed if token in LIKELY or token > 255]
        if likely and self.random.random() < 0.5:
            return self.random.choice(likely)
        plain = [token for token in allowed if 32 <= token < 127 or token == 10]
        return self.random.choice(plain if len(allowed) > 8 and plain else allowed)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("parallel", [True, False])
def test_required_gives_calls_and_nothing_else(engine, name, parallel):
    counts = set()
    for seed in range(8):
        walk = Walk(engine, FORMATS[name], Choice("required", parallel=parallel), seed)
        if name == "gpt-oss":  # which may say beforehand what it is about to do
            walk.write(BEGINNINGS[name])
        answer = walk.answer()
        counts.add(len(answer.calls))
        assert answer.content.strip() == ""
    one_at_most = not parallel or name == "gpt-oss"
    assert counts == {1} if one_at_most else min(counts) == 1 < max(counts)


@pytest.mark.parametrize("name", FORMATS)
def test_a_named_tool_is_called_once_and_no_other_is(engine, name):
    for seed in range(4):
        walk = Walk(engine, FORMATS[name], Choice("named", "get_weather"), seed)
        if name == "gpt-oss":
            walk.write(BEGINNINGS[name])
        answer = walk.answer()
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
def test_auto_leaves_text_free_and_holds_a_call_once_it_has_begun(engine, name, parallel):
    free = (
        f"<|channel|>commentary<|message|>{FREE}<|end|><|start|>assistant"
        if name == "gpt-oss"
        else FREE
    )
    for seed in range(4):
        walk = Walk(engine, FORMATS[name], Choice("auto", parallel=parallel), seed)
        walk.write(free + BEGINNINGS[name])
        assert STOP not in walk.allowed()
        answer = walk.answer()
        assert answer.calls
        assert answer.content.startswith(FREE.strip())
        if not parallel:
            assert len(answer.calls) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_auto_may_end_without_a_call(engine, name):
    walk = Walk(engine, FORMATS[name], Choice("auto"), 0)
    walk.write(f"<|channel|>final<|message|>{FREE}" if name == "gpt-oss" else FREE)
    assert STOP in walk.allowed()


@pytest.mark.parametrize("arguments", ["", "a=1", "b=True", "a=1, c=None", "b=False, c=None"])
def test_optional_arguments_of_python_calls_may_be_left_out(engine, arguments):
    walk = Walk(engine, FORMATS["pythonic"], Choice("named", "get"), 0)
    walk.write(f"[get({arguments})]")
    assert STOP in walk.allowed()


def test_python_calls_refuse_schemas_that_they_cannot_be_held_to():
    tool = Tool("f", {"type": "object", "properties": {}, "minProperties": 1})
    with pytest.raises(InvalidRequestError, match=r"tool f: .*minProperties"):
        FORMATS["pythonic"].grammar([tool], Choice("required"))
