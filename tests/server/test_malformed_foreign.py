"""Malformed requests to Anthropic's and Ollama's routes are refused in a way their clients read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch_server.anthropic.protocol import CountTokensRequest, MessagesRequest
from inarch_server.ollama.models import ShowRequest
from inarch_server.ollama.protocol import OllamaChatRequest, OllamaGenerateRequest

from .anthropic_talk import ASK, MESSAGES, WEATHER
from .harness import Server
from .talking import SCHEMA, talker
from .talking import WEATHER as FUNCTION

COUNT = "/v1/messages/count_tokens"
CHAT, GENERATE, SHOW = "/api/chat", "/api/generate", "/api/show"
HI: dict[str, Any] = {"model": "standin", "messages": ASK["messages"]}
ONE = {"model": "standin", "prompt": "one"}
FORMAT = {"type": "json_schema", "schema": SCHEMA}
USE = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}


def turns(*turns: tuple[str, Any]) -> dict[str, Any]:
    return ASK | {"messages": [{"role": role, "content": content} for role, content in turns]}


def block(**fields: Any) -> dict[str, Any]:
    return turns(("user", [fields]))


def options(**fields: Any) -> dict[str, Any]:
    return HI | {"options": fields}


def image(**fields: Any) -> dict[str, Any]:
    return HI | {"messages": [{"role": "user", "content": "x", **fields}]}


@pytest.mark.parametrize(
    ("path", "body", "fragments"),
    [
        (MESSAGES, {"max_tokens": 3}, ["messages is required"]),
        (MESSAGES, {"messages": ASK["messages"]}, ["max_tokens is required"]),
        (MESSAGES, ASK | {"max_tokens": "5"}, ["max_tokens", 'got "5"']),
        (MESSAGES, ASK | {"max_tokens": -1}, ["max_tokens", "got -1"]),
        (MESSAGES, ASK | {"messages": []}, ["messages", "at least 1"]),
        (MESSAGES, turns(("king", "x")), ["messages[0].role", '"king"']),
        (MESSAGES, turns(("user", 3)), ["messages[0].content", "got 3"]),
        (MESSAGES, turns(("user", [])), ["messages hold nothing"]),
        (MESSAGES, turns(("user", ["x"])), ["messages[0].content[0]", 'got "x"']),
        (MESSAGES, block(type="image", source={}), ["content[0]", 'not "image"', "text"]),
        (MESSAGES, block(type="document", source={}), ['not "document"']),
        (MESSAGES, block(text="x"), ["content[0]", "not null"]),
        (MESSAGES, block(type="text"), ["messages[0].content[0].text is required"]),
        (MESSAGES, turns(("user", [USE])), ["messages[0]", "tool_use cannot come from user"]),
        (MESSAGES, turns(("assistant", "x")), ["must begin with one of the user"]),
        (MESSAGES, turns(("user", "x"), ("assistant", [USE])), ["have no results"]),
        (
            MESSAGES,
            block(type="tool_result", tool_use_id="t", content=[{"type": "image"}]),
            ["messages[0].content[0].content", 'not "image"'],
        ),
        (MESSAGES, ASK | {"system": [{"type": "image"}]}, ["system", 'not "image"']),
        (MESSAGES, ASK | {"tools": [{"name": "f"}]}, ["tools[0].input_schema is required"]),
        (
            MESSAGES,
            ASK | {"tools": [{"type": "bash_20250124", "name": "bash"}]},
            ["tools[0].type", "must be custom", "bash_20250124"],
        ),
        (MESSAGES, ASK | {"tools": [WEATHER, WEATHER]}, ["'weather' twice"]),
        (MESSAGES, ASK | {"tools": [WEATHER | {"defer_loading": True}]}, ["not supported"]),
        (MESSAGES, ASK | {"tool_choice": {"type": "any"}}, ["needs tools"]),
        (MESSAGES, ASK | {"tool_choice": {"type": "tool"}}, ["tool_choice.name is required"]),
        (MESSAGES, ASK | {"tool_choice": {"type": "tool", "name": "g"}}, ["none of the tools"]),
        (MESSAGES, ASK | {"tool_choice": "any"}, ["tool_choice", 'got "any"']),
        (MESSAGES, ASK | {"thinking": {"type": "between_tools"}}, ["thinking.type"]),
        (
            MESSAGES,
            ASK | {"thinking": {"type": "enabled", "budget_tokens": 500}},
            ["thinking.budget_tokens (500) must be below max_tokens (500)"],
        ),
        (
            MESSAGES,
            ASK | {"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}},
            ["output_config.effort", "disabled"],
        ),
        (MESSAGES, ASK | {"output_config": {"format": {"type": "xml"}}}, ["format.type"]),
        (
            MESSAGES,
            ASK | {"output_config": {"format": FORMAT}, "output_format": FORMAT},
            ["older name"],
        ),
        (
            MESSAGES,
            turns(("user", "x"), ("assistant", "{")) | {"output_format": FORMAT},
            ["output_format", "leave one of them out"],
        ),
        (MESSAGES, ASK | {"stop": ["x"]}, ["use stop_sequences"]),
        (MESSAGES, ASK | {"stop_sequences": [""]}, ["stop_sequences", "got 0"]),
        (MESSAGES, ASK | {"stop_sequences": "x"}, ["stop_sequences", 'got "x"']),
        (MESSAGES, ASK | {"n": 2}, ["n", "got 2"]),
        (MESSAGES, ASK | {"mcp_servers": [{}]}, ["mcp_servers", "not supported"]),
        (COUNT, {}, ["messages is required"]),
        (COUNT, {"messages": ASK["messages"], "model": 3}, ["model", "got 3"]),
        (CHAT, {}, ["model is required"]),
        (CHAT, HI | {"messages": [{}]}, ["messages[0].role is required"]),
        (CHAT, image(images=["aGk="]), ["messages[0].images", "reads text alone"]),
        (CHAT, image(tool_calls=[{"function": {"name": "f"}}]), ["cannot have tool_calls"]),
        (CHAT, HI | {"tools": [{"type": "function"}]}, ["tools[0].function is required"]),
        (CHAT, HI | {"tools": [FUNCTION, FUNCTION]}, ["'weather' twice"]),
        (CHAT, HI | {"format": "xml"}, ["format", 'got "xml"']),
        (CHAT, HI | {"format": 3}, ["format", "got 3"]),
        (CHAT, HI | {"think": "hard"}, ["think", '"hard"']),
        (CHAT, HI | {"stream": "no"}, ["stream", 'got "no"']),
        (CHAT, options(num_ctx=4096), ["options.num_ctx is 4096", "2048 tokens"]),
        (CHAT, options(num_predict="5"), ["options.num_predict", 'got "5"']),
        (CHAT, options(temperature=-1), ["options.temperature", "got -1"]),
        (CHAT, options(repeat_penalty=0), ["options.repeat_penalty must be between"]),
        (CHAT, options(top_p=2), ["options.top_p must be between"]),
        (CHAT, options(mirostat=2), ["options.mirostat", "use temperature"]),
        (CHAT, options(tfs_z=0.5), ["options.tfs_z", "use top_p"]),
        (CHAT, options(repeat_last_n=64), ["options.repeat_last_n", "all tokens"]),
        (CHAT, options(penalize_newline=False), ["options.penalize_newline"]),
        (CHAT, HI | {"options": [1]}, ["options", "got a list of 1"]),
        (CHAT, HI | {"top_logprobs": 3}, ["top_logprobs is allowed only with logprobs"]),
        (CHAT, HI | {"logprobs": True, "top_logprobs": 21}, ["top_logprobs", "between 0 and 20"]),
        (GENERATE, {"prompt": "x"}, ["model is required"]),
        (GENERATE, ONE | {"prompt": 3}, ["prompt", "got 3"]),
        (GENERATE, ONE | {"suffix": "s"}, ["suffix", "not supported"]),
        (GENERATE, ONE | {"template": "t"}, ["template", "raw: true"]),
        (GENERATE, ONE | {"context": [1]}, ["context", "/api/chat"]),
        (GENERATE, ONE | {"images": ["aGk="]}, ["images", "text alone"]),
        (GENERATE, ONE | {"raw": True, "system": "s"}, ["system", "raw: true"]),
        (GENERATE, ONE | {"raw": True, "think": True}, ["think", "raw: true"]),
        (GENERATE, ONE | {"prompt": "x" * 3000}, ["prompt has 30", "2048 tokens"]),
        (SHOW, {}, ["model is required"]),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_was_expected(
    server: Server, path: str, body: dict[str, Any], fragments: list[str]
) -> None:
    answer = server.post(path, body)
    assert answer.status == 400, answer.body
    if path.startswith("/api/"):
        message = answer.json["error"]
    else:
        assert (answer.json["type"], answer.error["type"]) == ("error", "invalid_request_error")
        message = answer.error["message"]
    assert all(fragment in message for fragment in fragments), message
    assert len(message) < 400
    # Nothing of it reached the engine.
    assert server.engine.asked == []


REQUESTS = {
    MESSAGES: (MessagesRequest, ASK),
    COUNT: (CountTokensRequest, {"messages": ASK["messages"]}),
    CHAT: (OllamaChatRequest, HI),
    GENERATE: (OllamaGenerateRequest, ONE),
    SHOW: (ShowRequest, {"model": "standin"}),
}


def bodies(path: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """Those that are right but for some fields, of which values are made of the words that the schema
    knows, so that more than the first look at a type is tried."""
    model, right = REQUESTS[path]
    words = st.sampled_from(
        sorted(set(re.findall(r'"(\w+)"', json.dumps(model.model_json_schema()))))
    )
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=8)
        | words,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(words, inner, max_size=5)
            | st.builds(
                lambda kind, rest: {"type": kind} | rest, words, st.dictionaries(words, inner)
            )
        ),
        max_leaves=12,
    )
    fields = sorted({field.alias or name for name, field in model.model_fields.items()})
    changed = st.dictionaries(st.sampled_from(fields), values, max_size=4)
    return st.tuples(st.just(path), changed.map(lambda some: right | some))


BODIES = st.one_of([bodies(path) for path in sorted(REQUESTS)])


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Server]:
    """Says what is nearly a call, behind reasoning that may have ended."""
    engine = talker('Hm</think><tool_call>\n{"name": "x", "arguments": {"y": [1', reasons=True)
    with Server(engine) as server:
        yield server


@settings(max_examples=300, deadline=None)
@given(request=BODIES)
def test_no_body_whatever_is_the_servers_fault(
    fuzzed: Server, request: tuple[str, dict[str, Any]]
) -> None:
    path, body = request
    answer = fuzzed.post(path, json.dumps(body).encode(errors="surrogatepass"))
    # 504: it asked for less time than that takes.
    assert answer.status in (200, 400, 404, 504), answer.body
    if answer.status != 200:
        error = answer.json["error"]
        assert error if path.startswith("/api/") else error["message"]
