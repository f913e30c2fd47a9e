"""Tools as people write them, asked for with OpenAI's client: arguments validate, in whatever format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest

from .process import ServerProcess

# One that writes JSON, one that writes bare text between markers, one that writes Python.
FORMATS = ("hermes", "qwen3_coder", "pythonic")
UNIT = {"type": "string", "enum": ["°C", "°F"], "description": "of the temperature"}
# Of few digits: a model as small as this one may go on with digits for ever.
NUMBER = {"type": "number", "minimum": 0, "maximum": 90, "multipleOf": 0.25}
POINT = {"type": "object", "properties": {"x": NUMBER, "name": {"$ref": "#/$defs/name"}},
         "required": ["x", "name"]}  # fmt: skip
PROPERTIES: dict[str, Any] = {
    "city": {"type": "string", "maxLength": 12, "title": "City"},
    "unit": UNIT,
    "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{2,3}$"},
    "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 3},
    "near": {"type": "array", "items": POINT, "minItems": 1, "maxItems": 2},
    "level": {"type": ["string", "null"], "enum": ["low", "high", None]},
    "place": POINT,
    "metric": {"type": "boolean"},
}
NAME = {"type": "string", "minLength": 1, "maxLength": 6}
WEATHER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Weather",
    "type": "object", "$defs": {"name": NAME}, "properties": PROPERTIES,
    "required": ["city", "unit", "code", "near", "level", "place"],
}  # fmt: skip
NOTHING = {"type": "object", "properties": {}}
OPTIONAL = {"type": "object", "properties": {"a": UNIT, "b": {"type": "integer", "maximum": 99}}}
SCHEMAS = {"weather": WEATHER, "now": NOTHING, "optional": OPTIONAL}


TEMPLATE = "{{ tools | tojson }}{% for m in messages %}{{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="module", params=FORMATS)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    template = tmp_path_factory.mktemp("chat") / "template.jinja"
    template.write_text(TEMPLATE)
    options = ("--tool-call-parser", request.param, "--chat-template", str(template))
    with ServerProcess(*options) as server, server.openai() as client:
        yield client


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("stream", [False, True])
def test_arguments_fit_the_schema_and_hold_nothing_else(
    client: openai.OpenAI, name: str, stream: bool
) -> None:
    tools = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in SCHEMAS.items()
    ]
    for seed in range(2):
        asked: dict[str, Any] = {
            "model": "inarch-tiny", "seed": seed, "temperature": 1.3, "tools": tools,
            "messages": [{"role": "user", "content": "How is the weather on the continent?"}],
            "tool_choice": {"type": "function", "function": {"name": name}}, "max_tokens": 700,
        }  # fmt: skip
        if stream:
            with client.chat.completions.stream(**asked) as events:
                choice = events.get_final_completion().choices[0]
        else:
            choice = client.chat.completions.create(**asked).choices[0]
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        arguments = json.loads(call.function.arguments)
        jsonschema.validate(arguments, SCHEMAS[call.function.name])
        assert arguments.keys() <= SCHEMAS[name]["properties"].keys()
        for point in [*arguments.get("near", ()), arguments.get("place", {})]:
            assert point.keys() <= POINT["properties"].keys()
