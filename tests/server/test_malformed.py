"""Malformed requests are refused with a 4xx that names the field, the value and what was expected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch_server.decisions.protocol import DecisionRequest
from inarch_server.native.protocol import GenerateRequest
from inarch_server.native.tokenizing import DetokenizeRequest, TokenizeRequest
from inarch_server.openai.chat_protocol import ChatRequest
from inarch_server.openai.completions_protocol import CompletionRequest
from inarch_server.openai.responses.protocol import ResponsesRequest

from .harness import Server, messages
from .talking import talker

CHAT, COMPLETIONS, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
HI = {"messages": messages("Hi")}
ONE = {"prompt": "one"}
TEXT = {"text": "one"}
JSON = {"type": "json_object"}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


TOOL, NAMED_G = tool("f"), tool("g")
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("raw", "fragment"),
    [
        (b"", "it is empty"),
        (b"{", "truncated"),
        (b'{"prompt": oops}', "invalid character (byte 11)"),
        (b'{"prompt": "one"} x', "trailing characters (byte 19)"),
        (b'{"prompt": "one", "temperature": NaN}', "invalid character (byte 33)"),
        (b'{"prompt": "one", "temperature": -Infinity}', "invalid"),
        (b'{"prompt": "one", "temperature": 1e999}', "out of range"),
        (b'{"prompt": "\xff"}', "not valid UTF-8"),
        (b'{"prompt": "\\ud800"}', "not valid JSON"),
        (b"\xff\xfe{\x00}\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "must be a JSON object, got a list of 0"),
        (b'"one"', 'must be a JSON object, got "one"'),
        (b"null", "must be a JSON object, got null"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, GENERATE])
def test_a_body_that_is_no_json_object_is_refused(
    server: Server, path: str, raw: bytes, fragment: str
) -> None:
    answer = server.post(path, raw)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert fragment in answer.error["message"]


@pytest.mark.parametrize(
    ("path", "body", "param", "fragment"),
    [
        (CHAT, {}, "messages", "messages is required"),
        (CHAT, {"messages": []}, "messages", "at least 1 item"),
        (CHAT, {"messages": "Hi"}, "messages", 'got "Hi"'),
        (CHAT, {"messages": ["Hi"]}, "messages[0]", 'got "Hi"'),
        (CHAT, {"messages": [{"content": "Hi"}]}, "messages[0].role", "is required"),
        (CHAT, {"messages": [{"role": "king", "content": "Hi"}]}, "messages[0].role", '"king"'),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0]", "needs content"),
        (CHAT, {"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "got 3"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content",
            'not "image_url"',
        ),
        (CHAT, {**HI, "model": 3}, "model", "got 3"),
        (CHAT, {**HI, "max_tokens": 10**20}, "max_tokens", "must be between 0 and"),
        (CHAT, {**HI, "stream": "yes"}, "stream", 'got "yes"'),
        (CHAT, {**HI, "stream_options": {}}, "stream_options", "only with stream: true"),
        (CHAT, {**HI, "top_logprobs": 2}, "top_logprobs", "only with logprobs: true"),
        (CHAT, {**HI, "logprobs": True, "top_logprobs": 21}, "top_logprobs", "between 0 and 20"),
        (CHAT, {**HI, "logprobs": True, "top_logprobs": -1}, "top_logprobs", "got -1"),
        (CHAT, {**HI, "max_completion_tokens": -1}, "max_completion_tokens", "got -1"),
        (CHAT, {**HI, "max_tokens": "5"}, "max_tokens", 'valid integer, got "5"'),
        (CHAT, {**HI, "max_tokens": True}, "max_tokens", "valid integer, got true"),
        (CHAT, {**HI, "max_tokens": 5.5}, "max_tokens", "got 5.5"),
        (CHAT, {**HI, "temperature": "hot"}, "temperature", 'got "hot"'),
        (CHAT, {**HI, "temperature": -0.1}, "temperature", "got -0.1"),
        (CHAT, {**HI, "temperature": True}, "temperature", "got true"),
        (CHAT, {**HI, "top_p": 1.5}, "top_p", "between 0 and 1"),
        (CHAT, {**HI, "top_p": 0}, "top_p", "above 0"),
        (CHAT, {**HI, "top_k": 0}, "top_k", "at least 1"),
        (CHAT, {**HI, "n": 0}, "n", "got 0"),
        (CHAT, {**HI, "n": 10**6}, "n", "got 1000000"),
        (CHAT, {**HI, "seed": 2**70}, "seed", "seed must be between"),
        (CHAT, {**HI, "stop": [1]}, "stop[0]", "got 1"),
        (CHAT, {**HI, "stop": ""}, "stop", "stop string"),
        (CHAT, {**HI, "stop": ["x"] * 33}, "stop", "at most 32"),
        (CHAT, {**HI, "stop_token_ids": [257]}, "stop_token_ids", "token id 257 is outside"),
        (CHAT, {**HI, "stop_token_ids": [True]}, "stop_token_ids[0]", "got true"),
        (CHAT, {**HI, "logit_bias": {"x": 1}}, "logit_bias", '"x" is none'),
        (CHAT, {**HI, "logit_bias": {"-1": 1}}, "logit_bias", '"-1" is none'),
        (CHAT, {**HI, "logit_bias": {"999": 1}}, "logit_bias", "999"),
        (CHAT, {**HI, "logit_bias": {"1": 101}}, "logit_bias", "got 101"),
        (CHAT, {**HI, "logit_bias": [1]}, "logit_bias", "got a list of 1"),
        (CHAT, {**HI, "min_tokens": 5, "max_tokens": 4}, "min_tokens", "exceeds"),
        (CHAT, {**HI, "tools": [{}]}, "tools[0].type", "is required"),
        (CHAT, {**HI, "tools": [{"type": "web_search"}]}, "tools[0].type", "'function'"),
        (CHAT, {**HI, "tools": [TOOL, TOOL]}, "tools", "'f' twice"),
        (CHAT, {**HI, "tools": [tool("f g")]}, "tools[0].function.name", 'got "f g"'),
        (CHAT, {**HI, "tool_choice": "required"}, "tool_choice", "needs tools"),
        (CHAT, {**HI, "tool_choice": {"type": "function"}}, "tool_choice", "needs the field"),
        (CHAT, {**HI, "tools": [TOOL], "tool_choice": NAMED_G}, "tool_choice", "none of the tools"),
        (CHAT, {**HI, "tools": [TOOL]}, "tools", "--tool-call-parser"),
        (CHAT, {**HI, "functions": [{"name": "f"}]}, "functions", "tools and tool_choice"),
        (CHAT, {**HI, "function_call": "auto"}, "function_call", "tools and tool_choice"),
        (CHAT, {**HI, "response_format": "json"}, "response_format", 'got "json"'),
        (CHAT, {**HI, "response_format": {"type": "xml"}}, "response_format.type", 'got "xml"'),
        (CHAT, {**HI, "response_format": {"type": "json_schema"}}, "response_format", "needs"),
        (CHAT, {**HI, "response_format": {"type": "structural_tag"}}, "response_format", "needs"),
        (CHAT, {**HI, "regex": "a", "ebnf": "b"}, "ebnf", "regex and ebnf"),
        (CHAT, {**HI, "json_schema": "x"}, "json_schema", "not JSON"),
        (COMPLETIONS, {**ONE, "structural_tag": '{"a": 1'}, "structural_tag", "not JSON"),
        (CHAT, {**HI, "regex": "a", "response_format": JSON}, "response_format", "and regex both"),
        (CHAT, {**HI, "guided_json": {}, "guided_regex": "a"}, "guided_regex", "use regex"),
        (CHAT, {**HI, "reasoning_effort": "lots"}, "reasoning_effort", '"lots"'),
        (CHAT, {**HI, "reasoning_effort": "high"}, "reasoning_effort", "enable_thinking"),
        (CHAT, {**HI, "rid": ""}, "rid", 'got ""'),
        (CHAT, {**HI, "rid": "a\nERROR forged"}, "rid", "printable"),
        (GENERATE, {**TEXT, "rid": "a\nERROR forged"}, "rid", "printable"),
        (GENERATE, {**TEXT, "rid": "a" * 129}, "rid", "1 to 128 characters"),
        (CHAT, {"messages": [{**HI["messages"][0], "tool_calls": [CALL]}]}, "messages[0]", "user"),
        (CHAT, {**HI, "continue_final_message": True}, "continue_final_message", "assistant"),
        (COMPLETIONS, {}, "prompt", "prompt is required"),
        (COMPLETIONS, {"prompt": None}, "prompt", "got null"),
        (COMPLETIONS, {"prompt": ""}, "prompt", "must not be empty"),
        (COMPLETIONS, {"prompt": []}, "prompt", "must not be empty"),
        (COMPLETIONS, {"prompt": ["one", ""]}, "prompt[1]", "must not be empty"),
        (COMPLETIONS, {"prompt": [[]]}, "prompt[0]", "must not be empty"),
        (COMPLETIONS, {"prompt": ["one", 2]}, "prompt[1]", "got 2"),
        (COMPLETIONS, {"prompt": [1, "two"]}, "prompt[1]", 'got "two"'),
        (COMPLETIONS, {"prompt": [True]}, "prompt[0]", "got true"),
        (COMPLETIONS, {"prompt": [1.0]}, "prompt[0]", "got 1.0"),
        (COMPLETIONS, {"prompt": [[1, None]]}, "prompt[0][1]", "got null"),
        (COMPLETIONS, {"prompt": {"a": 1}}, "prompt", "got an object of 1"),
        (COMPLETIONS, {"prompt": [-1]}, "prompt", "token id -1 is outside"),
        (COMPLETIONS, {"prompt": [[257]]}, "prompt[0]", "0..256"),
        (COMPLETIONS, {"prompt": ["x"] * 1025}, "prompt", "1024"),
        (COMPLETIONS, {"prompt": ["x"] * 100, "n": 100}, "n", "10000 choices"),
        (COMPLETIONS, {"prompt": "x" * 2048}, "prompt", "2048 tokens"),
        (COMPLETIONS, {"prompt": [1] * 5000}, "prompt", "5000 tokens"),
        (COMPLETIONS, {"prompt": "x" * (1 << 21)}, "prompt", "2097152 characters"),
        (COMPLETIONS, {"prompt": [[1], 2]}, "prompt[1]", "got 2"),
        (COMPLETIONS, {**ONE, "suffix": "s"}, "suffix", "is not supported"),
        (COMPLETIONS, {**ONE, "best_of": 2, "n": 3}, "best_of", "at least n (3)"),
        (COMPLETIONS, {**ONE, "best_of": 129}, "best_of", "got 129"),
        (COMPLETIONS, {**ONE, "best_of": 2, "stream": True}, "best_of", "send no stream"),
        (COMPLETIONS, {**ONE, "logprobs": True}, "logprobs", "got true"),
        (COMPLETIONS, {**ONE, "regex": 3}, "regex", "got 3"),
        (GENERATE, {}, "text", "exactly one of text and input_ids"),
        (GENERATE, {"text": "a", "input_ids": [1]}, "text", "exactly one of"),
        (GENERATE, {"text": [1]}, "text", "must be a text or a list of texts"),
        (GENERATE, {"text": 3}, "text", "got 3"),
        (GENERATE, {"text": []}, "text", "must not be empty"),
        (GENERATE, {"input_ids": "one"}, "input_ids", "list of token ids"),
        (GENERATE, {"input_ids": [1, "x"]}, "input_ids[1]", 'a token id, got "x"'),
        (GENERATE, {"input_ids": 7}, "input_ids", "got 7"),
        (GENERATE, {**TEXT, "sampling_params": 3}, "sampling_params", "got 3"),
        (
            GENERATE,
            {**TEXT, "sampling_params": {"max_new_tokens": -5}},
            "sampling_params.max_new_tokens",
            "sampling_params.max_new_tokens must be between",
        ),
        (
            GENERATE,
            {**TEXT, "sampling_params": {"temperature": "x"}},
            "sampling_params.temperature",
            'got "x"',
        ),
        (
            GENERATE,
            {**TEXT, "sampling_params": [{}, {"n": 0}]},
            "sampling_params",
            "a list of 2, but there are 1 prompts",
        ),
        (
            GENERATE,
            {"text": ["a", "b"], "sampling_params": [{}, {"n": 0}]},
            "sampling_params[1].n",
            "got 0",
        ),
        (GENERATE, {**TEXT, "rid": ["a", "b"]}, "rid", "a list of 2"),
        (GENERATE, {**TEXT, "rid": 7}, "rid", "got 7"),
        (GENERATE, {**TEXT, "rid": [None]}, "rid", "got a list of 1"),
        (GENERATE, {**TEXT, "return_logprob": 1}, "return_logprob", "got 1"),
        (GENERATE, {**TEXT, "logprob_start_len": -2}, "logprob_start_len", "-2"),
        (GENERATE, {**TEXT, "image_data": "x"}, "image_data", "is not supported"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_was_expected(
    server: Server, path: str, body: dict[str, Any], param: str, fragment: str
) -> None:
    answer = server.post(path, body)
    assert answer.status == 400, answer.body
    assert (answer.error["type"], answer.error["param"]) == ("invalid_request_error", param)
    assert fragment in answer.error["message"]
    assert len(answer.error["message"]) < 400
    # Nothing of it reached the engine.
    assert server.engine.asked == []


def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers(server: Server) -> None:
    error = server.post(COMPLETIONS, {"prompt": "x" * 3000}).error
    assert error["code"] == "context_length_exceeded"
    assert "3000 tokens" in error["message"]
    assert "2048" in error["message"]


def test_a_body_over_the_limit_is_refused_in_so_many_words(server: Server) -> None:
    answer = server.post(COMPLETIONS, b'{"prompt": "' + b"x" * (50 << 20) + b'"}')
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")
    assert "32 MiB" in answer.error["message"]


def test_a_body_that_cannot_be_unpacked_is_refused(server: Server) -> None:
    answer = server.post(COMPLETIONS, b'{"prompt": "one"}', **{"Content-Encoding": "gzip"})
    assert answer.status == 400
    assert "cannot be unpacked" in answer.error["message"]


def test_unknown_fields_are_ignored(server: Server) -> None:
    extra = {"user": "me", "store": False, "metadata": {"a": 1}, "something_new": [1]}
    assert server.post(CHAT, {**HI, **extra}).status == 200


def test_an_unknown_route_and_a_wrong_method_have_openai_bodies_too(server: Server) -> None:
    unknown = server.post("/v1/moderations", {})
    assert (unknown.status, unknown.error["code"]) == (404, "not_found")
    wrong = server.get(CHAT)
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert "allowed: POST" in wrong.error["message"]


RIGHT: dict[str, tuple[type, dict[str, Any]]] = {
    CHAT: (ChatRequest, HI | {"tools": [TOOL]}),
    COMPLETIONS: (CompletionRequest, ONE),
    GENERATE: (GenerateRequest, TEXT),
    "/v1/responses": (ResponsesRequest, {"input": "Hi", "tools": [{**TOOL["function"], **TOOL}]}),
    "/v1/decisions": (
        DecisionRequest,
        {"input": "Hi", "questions": [{"type": "predicate", "instructions": "x"}]},
    ),
    "/v1/tokenize": (TokenizeRequest, ONE),
    "/v1/detokenize": (DetokenizeRequest, {"tokens": [1]}),
}
WORDS = [
    *("user", "assistant", "tool", "text", "content", "role", "type", "message", "function"),
    *(
        "function_call",
        "function_call_output",
        "reasoning",
        "call_id",
        "output",
        "name",
        "arguments",
    ),
    *("json_schema", "json_object", "schema", "structural_tag", "structures", "auto", "required"),
    *("predicate", "choice", "choices", "score", "levels", "value", "label", "instructions"),
    *("input_text", "input_json", "data", "allowed_tools", "mode", "tools", "parameters"),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(WORDS)
    | st.sampled_from([TOOL, CALL, NAMED_G, JSON, *HI["messages"]]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def _bodies(model: type) -> st.SearchStrategy[dict[str, Any]]:
    """A body that is right but for some fields."""
    fields = sorted(model.model_fields)
    return st.dictionaries(st.sampled_from(fields), VALUES, max_size=4)


REQUESTS = st.sampled_from(sorted(RIGHT)).flatmap(
    lambda path: st.tuples(st.just(path), _bodies(RIGHT[path][0]))
)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Server]:
    """With a short context: n = 128 answers to the end of it must not take long."""
    with Server(talker(reasons=True, context=256)) as server:
        yield server


@settings(max_examples=200, deadline=None)
@given(request=REQUESTS)
def test_no_body_whatever_is_the_servers_fault(
    fuzzed: Server, request: tuple[str, dict[str, Any]]
) -> None:
    path, changed = request
    body = RIGHT[path][1] | changed
    answer = fuzzed.post(path, json.dumps(body).encode(errors="surrogatepass"))
    # 504: it asked for less time than that takes.
    assert answer.status in (200, 400, 404, 504), answer.body
    if answer.status != 200:
        assert answer.error["message"]
