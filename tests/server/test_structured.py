"""Response formats and constraints: what they come to as a grammar, and how they are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from inarch.grammar import Grammar

from .harness import Server, messages
from .talking import talker

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TAG = {
    "triggers": ["<a"],
    "structures": [{"begin": "<a>", "schema": SCHEMA, "end": "</a>"}],
}


class City(BaseModel):
    name: str
    people: int


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar(kind="json_object")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            Grammar(kind="json_schema", source=json.dumps(SCHEMA, separators=(",", ":"))),
        ),
        ({"regex": "a+"}, Grammar(kind="regex", source="a+")),
        ({"ebnf": 'root ::= "a"'}, Grammar(kind="ebnf", source='root ::= "a"')),
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_an_answer_is_held_to_what_the_request_says(
    path: str, fields: dict[str, Any], grammar: Grammar | None
) -> None:
    body = {"messages": messages("Hi")} if path == CHAT else {"prompt": "Hi"}
    with Server(talker("{}")) as server:
        assert server.post(path, {**body, **fields}).status == 200
        assert server.engine.asked[-1][1].grammar == grammar


def test_a_structural_tag_reaches_the_engine_as_it_is() -> None:
    with Server(talker("a")) as server:
        body = {"messages": messages("Hi"), "response_format": {"type": "structural_tag", **TAG}}
        assert server.post(CHAT, body).status == 200
        grammar = server.engine.asked[-1][1].grammar
    assert grammar.kind == "structural_tag"
    assert json.loads(grammar.source) == {"type": "structural_tag", **TAG}


def test_openais_client_parses_into_a_model_of_pydantic() -> None:
    with Server(talker('{"name": "Rom", "people": 3}')) as server, server.openai() as client:
        answer = client.chat.completions.parse(
            model="standin", messages=messages("Rome?"), response_format=City
        )
        schema = json.loads(server.engine.asked[-1][1].grammar.source)
    assert answer.choices[0].message.parsed == City(name="Rom", people=3)
    assert schema["required"] == ["name", "people"]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format"),
        (CHAT, {"regex": "a"}, "response_format"),
        (COMPLETIONS, {"regex": "a"}, "regex"),
    ],
)
def test_without_a_grammar_engine_it_is_refused_and_not_ignored(
    server: Server, path: str, fields: dict[str, Any], param: str
) -> None:
    body = {"messages": messages("Hi")} if path == CHAT else {"prompt": "Hi"}
    refused = server.post(path, {**body, **fields})
    assert (refused.status, refused.error["param"]) == (400, param)
    assert "pip install" in refused.error["message"]
