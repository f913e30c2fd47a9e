"""Tools in chat completions: what reaches the model, what it is held to, and what clients hear."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inarch.formats import Formats
from inarch.parsing import Choice, Tool
from inarch_formats.hermes import Hermes

from .harness import Server, messages
from .standin import TEMPLATE as WITHOUT_TOOLS
from .talking import CLOCK, PLAIN, SCHEMA, WEATHER, call, talker

CHAT = "/v1/chat/completions"
ASK = {"messages": messages("Hi"), "tools": [WEATHER, CLOCK]}
TOOLS = [
    Tool("weather", SCHEMA, "Tell the weather"),
    Tool("clock", {"type": "object", "properties": {}, "additionalProperties": False}),
]


def prompt_of(server: Server) -> str:
    return bytes(server.engine.asked[-1][0]).decode()


def grammar_of(server: Server) -> Any:
    return server.engine.asked[-1][1].grammar


@pytest.mark.parametrize("stream", [False, True])
def test_calls_come_apart_from_content_with_ids_and_their_own_finish_reason(stream: bool) -> None:
    says = "Let me look." + call("weather", city="Köln") + call("clock")
    with Server(talker(says)) as server, server.openai() as client:
        asked: dict[str, Any] = {"model": "standin", **ASK}
        if stream:
            with client.chat.completions.stream(**asked) as events:
                choice = events.until_done().get_final_completion().choices[0]
        else:
            choice = client.chat.completions.create(**asked).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Let me look.", "tool_calls")
    first, second = choice.message.tool_calls
    assert (first.function.name, json.loads(first.function.arguments)) == (
        "weather",
        {"city": "Köln"},
    )
    assert (second.function.name, json.loads(second.function.arguments)) == ("clock", {})
    assert first.type == second.type == "function"
    assert first.id != second.id


def test_a_message_of_calls_alone_has_null_content() -> None:
    with Server(talker(call("clock"))) as server:
        message = server.post(CHAT, ASK).json["choices"][0]["message"]
    assert message["content"] is None
    assert "reasoning_content" not in message


def test_streamed_arguments_come_as_they_are_written() -> None:
    with Server(talker(call("weather", city="Berlin"))) as server:
        events = server.post(CHAT, {**ASK, "stream": True}).events
    calls = [c for e in events for c in e["choices"][0]["delta"].get("tool_calls", ())]
    first, *rest = calls
    assert (first["index"], first["type"], first["function"]["name"]) == (0, "function", "weather")
    assert len(rest) > 5
    assert all(entry.keys() == {"index", "function"} for entry in rest)
    text = "".join(c["function"]["arguments"] for c in calls)
    assert json.loads(text) == {"city": "Berlin"}


def test_a_name_that_is_no_tool_is_content() -> None:
    says = call("rm", path="/")
    with Server(talker(says)) as server:
        choice = server.post(CHAT, ASK).json["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": says}
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_what_might_have_become_a_call_is_content_when_the_answer_ends(stream: bool) -> None:
    with Server(talker("Look: <tool_c")) as server:
        answer = server.post(CHAT, {**ASK, "stream": stream})
    if stream:
        said = "".join(e["choices"][0]["delta"].get("content", "") for e in answer.events)
    else:
        said = answer.json["choices"][0]["message"]["content"]
    assert said == "Look: <tool_c"


def test_a_call_that_max_tokens_cuts_ends_for_length() -> None:
    with Server(talker(call("weather", city="Berlin"))) as server:
        choice = server.post(CHAT, {**ASK, "max_tokens": 55}).json["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"


def test_samples_call_tools_each_for_itself() -> None:
    with Server(talker(call("clock"))) as server:
        choices = server.post(CHAT, {**ASK, "n": 3}).json["choices"]
    ids = {choice["message"]["tool_calls"][0]["id"] for choice in choices}
    assert len(ids) == 3


def test_tools_reach_a_template_that_reads_them_as_openai_has_them() -> None:
    with Server(talker()) as server:
        server.post(CHAT, ASK)
        told = json.loads(prompt_of(server).split("\n")[0].removeprefix("tools: "))
    assert told[0] == WEATHER
    assert told[1]["function"]["name"] == "clock"


def test_a_conversation_with_calls_and_results_goes_back_into_the_template() -> None:
    function = {"name": "weather", "arguments": '{"city": "Bonn"}'}
    turns = [
        *messages("Weather?"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]
    with Server(talker("ok")) as server:
        assert server.post(CHAT, {**ASK, "messages": turns}).status == 200
        assert "assistant: [weather Bonn]\ntool: rain\nassistant: " in prompt_of(server)


@pytest.mark.parametrize(
    ("asked", "choice"),
    [
        ({}, Choice()),
        ({"tool_choice": "auto"}, Choice()),
        ({"tool_choice": "required"}, Choice("required")),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            Choice("required", None, False),
        ),
        (
            {"tool_choice": {"type": "function", "function": {"name": "clock"}}},
            Choice("named", "clock"),
        ),
    ],
)
def test_an_answer_is_held_to_the_choice_and_to_the_schemas(
    asked: dict[str, Any], choice: Choice
) -> None:
    with Server(talker(call("clock"))) as server:
        assert server.post(CHAT, {**ASK, **asked}).status == 200
        assert grammar_of(server) == Hermes().grammar(TOOLS, choice)


def test_tool_choice_none_keeps_tools_from_the_model_and_calls_in_the_content() -> None:
    says = call("clock")
    with Server(talker(says)) as server:
        choice = server.post(CHAT, {**ASK, "tool_choice": "none"}).json["choices"][0]
        assert "tools:" not in prompt_of(server)
        assert grammar_of(server) is None
    assert (choice["message"]["content"], choice["finish_reason"]) == (says, "stop")


def test_allowed_tools_are_all_that_there_is_for_the_model() -> None:
    clock = {"type": "function", "function": {"name": "clock"}}
    chosen = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [clock]}}
    with Server(talker(call("clock"))) as server:
        server.post(CHAT, {**ASK, "tool_choice": chosen})
        assert grammar_of(server) == Hermes().grammar(TOOLS[1:], Choice("required"))
        assert "weather" not in prompt_of(server)


def test_without_a_grammar_engine_calls_are_read_unheld_unless_they_must_be() -> None:
    with Server(talker(call("clock"), kinds=())) as server:
        choice = server.post(CHAT, ASK).json["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert grammar_of(server) is None
        refused = server.post(CHAT, {**ASK, "tool_choice": "required"})
    assert (refused.status, refused.error["param"]) == (400, "tool_choice")
    assert "pip install llguidance" in refused.error["message"]


def test_a_response_format_beside_tools_holds_the_answer_to_either() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    with Server(talker('{"a": 1}')) as server:
        assert server.post(CHAT, {**ASK, "response_format": format}).status == 200
        either = json.loads(grammar_of(server).source)["format"]
    calls = json.loads(Hermes().grammar(TOOLS, Choice("required")).source)["format"]
    assert either == {
        "type": "or",
        "elements": [{"type": "json_schema", "json_schema": schema}, calls],
    }


def test_a_template_that_reads_no_tools_is_told_of_them_in_words() -> None:
    says = '{"name": "weather", "arguments": {"city": "Rom"}}'
    engine = talker(
        says,
        formats=Formats(tools=PLAIN),
        template=WITHOUT_TOOLS.replace("m.role == 'system'", "false"),
    )
    function = {"name": "weather", "arguments": '{"city": "Bonn"}'}
    turns = [
        {"role": "system", "content": "Be kind."},
        *messages("Weather?"),
        {"role": "assistant", "tool_calls": [{"id": "1", "function": function}]},
        {"role": "tool", "content": "rain"},
        {"role": "tool", "content": "snow"},
    ]  # fmt: skip
    with Server(engine) as server:
        choice = server.post(CHAT, {**ASK, "messages": turns}).json["choices"][0]
        told = prompt_of(server)
    assert choice["message"]["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": '{"city": "Rom"}',
    }
    assert told.startswith("system: Be kind.\n\nYou can call these functions")
    assert '"name": "weather", "description": "Tell the weather"' in told
    assert 'assistant: {"name": "weather", "arguments": {"city": "Bonn"}}\n' in told
    assert told.endswith("user: Result: rain\nResult: snow\nassistant: ")


def test_such_a_template_with_another_format_is_refused_with_the_cure() -> None:
    with Server(talker(template=WITHOUT_TOOLS)) as server:
        refused = server.post(CHAT, ASK)
    assert (refused.status, refused.error["param"]) == (400, "tools")
    assert "--chat-template FILE" in refused.error["message"]


def test_a_loop_of_calls_ends_with_an_answer() -> None:
    """As an agent does it: call, run, tell, answer."""
    with Server(talker(call("weather", city="Oslo"))) as server, server.openai() as client:
        turns: list[Any] = messages("Weather in Oslo?")
        first = client.chat.completions.create(model="standin", messages=turns, tools=[WEATHER])
        turns.append(first.choices[0].message)
        (made,) = first.choices[0].message.tool_calls
        turns.append({"role": "tool", "tool_call_id": made.id, "content": "snow"})
        server.engine.says = "It snows."
        last = client.chat.completions.create(model="standin", messages=turns, tools=[WEATHER])
        assert "[weather Oslo]\ntool: snow" in prompt_of(server)
    assert (last.choices[0].message.content, last.choices[0].finish_reason) == ("It snows.", "stop")
