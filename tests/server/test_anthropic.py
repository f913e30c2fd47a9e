"""/v1/messages, as Anthropic's own client understands it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from .anthropic_talk import ASK, CLOCK, MESSAGES, WEATHER, client, events, put_together
from .harness import Server, messages
from .standin import StandIn
from .talking import call, talker

PROMPT = "user: Hi\nassistant: "  # what the stand-in's template makes of ASK
THOUGHT = "<think>\nHm, hm.\n</think>\n\n"


def test_an_answer_has_blocks_usage_and_a_reason_to_stop(server: Server) -> None:
    with client(server) as anthropic_client:
        message = anthropic_client.messages.create(**ASK)
    assert (message.type, message.role, message.model) == ("message", "assistant", "standin")
    assert message.id.startswith("msg_")
    (block,) = message.content
    assert (block.type, block.text) == ("text", PROMPT)
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    usage = message.usage
    assert (usage.input_tokens, usage.output_tokens) == (len(PROMPT), len(PROMPT) + 1)
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (0, 0)


def test_what_the_cache_had_is_told_apart_from_input(server: Server) -> None:
    server.engine.cached = 5
    with client(server) as anthropic_client:
        message = anthropic_client.messages.create(**ASK)
        with anthropic_client.messages.stream(**ASK) as stream:
            streamed = stream.get_final_message()
    for usage in (message.usage, streamed.usage):
        assert (usage.cache_read_input_tokens, usage.input_tokens) == (5, len(PROMPT) - 5)


def test_a_stream_has_its_events_in_order(server: Server) -> None:
    kinds = [event["type"] for event in events(server, ASK)]
    deltas = len(PROMPT)  # a token is a byte here
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert set(kinds[3:-3]) == {"content_block_delta"}
    assert 0 < len(kinds[3:-3]) <= deltas
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_the_client_puts_a_stream_together(server: Server) -> None:
    with client(server) as anthropic_client:
        with anthropic_client.messages.stream(**ASK) as stream:
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
        raw = list(anthropic_client.messages.create(**ASK, stream=True))
    assert text == message.content[0].text == PROMPT
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == len(PROMPT) + 1
    assert (raw[0].type, raw[-1].type) == ("message_start", "message_stop")


def test_the_async_client_does_the_same(server: Server) -> None:
    async def ask() -> tuple[Any, Any]:
        async with anthropic.AsyncAnthropic(base_url=server.url, api_key="any") as cli:
            whole = await cli.messages.create(**ASK)
            async with cli.messages.stream(**ASK) as stream:
                return whole, await stream.get_final_message()

    whole, streamed = asyncio.run(ask())
    assert whole.content[0].text == streamed.content[0].text == PROMPT


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("said", "ending"),
    [
        ({"max_tokens": 3}, ("max_tokens", None)),
        ({"max_tokens": 0}, ("max_tokens", None)),
        ({"stop_sequences": ["zz", "assis"]}, ("stop_sequence", "assis")),
        ({"stop_sequences": []}, ("end_turn", None)),
        ({"max_tokens": 10**6, "ignore_eos": True}, ("model_context_window_exceeded", None)),
    ],
)
def test_the_reason_to_stop_is_named(
    said: dict[str, Any], ending: tuple[str, str | None], stream: bool
) -> None:
    with Server(StandIn(context=64)) as server:
        body = ASK | said
        message = put_together(events(server, body)) if stream else server.post(MESSAGES, body).json
    assert (message["stop_reason"], message["stop_sequence"]) == ending
    if said.get("max_tokens") == 0:
        assert message["content"] == []  # the prompt is in the cache now, and that was all


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_text_and_calls_are_blocks_in_the_order_they_were_said(stream: bool) -> None:
    # The prompt begins the reasoning, so that calls are held to their schemas behind it.
    thought = THOUGHT.removeprefix("<think>\n")
    says = thought + "Let me look." + call("weather", city="Köln") + call("clock")
    asked = {**ASK, "tools": [WEATHER, CLOCK]}
    with Server(talker(says, reasons=True)) as server, client(server) as anthropic_client:
        if stream:
            with anthropic_client.messages.stream(**asked) as events:
                message = events.get_final_message()
        else:
            message = anthropic_client.messages.create(**asked)
    thinking, text, weather, clock = message.content
    assert (thinking.type, thinking.thinking.strip()) == ("thinking", "Hm, hm.")
    assert thinking.signature
    assert (text.type, text.text) == ("text", "Let me look.")
    assert (weather.type, weather.name, weather.input) == ("tool_use", "weather", {"city": "Köln"})
    assert (clock.name, clock.input) == ("clock", {})
    assert weather.id != clock.id
    assert message.stop_reason == "tool_use"
    assert message.usage.output_tokens_details.thinking_tokens == len(thought.rstrip())


def test_arguments_stream_as_they_are_written() -> None:
    with Server(talker(call("weather", city="Berlin"))) as server:
        found = events(server, {**ASK, "tools": [WEATHER]})
    deltas = [e["delta"] for e in found if e["type"] == "content_block_delta"]
    assert {delta["type"] for delta in deltas} == {"input_json_delta"}
    assert len(deltas) > 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_max_tokens_cuts_has_what_there_is_of_its_input(stream: bool) -> None:
    says = call("weather", city="Berlin", wind=True)
    most = says.index(', "wind')
    asked = {**ASK, "tools": [WEATHER], "max_tokens": most}
    with Server(talker(says)) as server, client(server) as anthropic_client:
        if stream:
            with anthropic_client.messages.stream(**asked) as events:
                message = events.get_final_message()
        else:
            message = anthropic_client.messages.create(**asked)
    assert (message.stop_reason, message.content[0].input) == ("max_tokens", {"city": "Berlin"})


def test_thinking_may_be_left_out_of_sight() -> None:
    asked = {**ASK, "thinking": {"type": "adaptive", "display": "omitted"}}
    with Server(talker(THOUGHT + "Yes.", reasons=True)) as server:
        whole = server.post(MESSAGES, asked).json
        streamed = put_together(events(server, asked))
    assert whole["content"] == streamed["content"]
    thinking, text = whole["content"]
    assert (thinking["thinking"], text["text"]) == ("", "Yes.")
    assert thinking["signature"]


def test_a_tool_loop_goes_round() -> None:
    asked = {**ASK, "tools": [WEATHER]}
    with Server(talker(call("weather", city="Rome"))) as server, client(server) as cli:
        first = cli.messages.create(**asked, tool_choice={"type": "any"})
        held = server.engine.asked[-1][1].grammar
        server.engine.says = "It is sunny."
        (use,) = first.content
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
        conversation = [
            *ASK["messages"],
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]},
        ]
        second = cli.messages.create(**{**asked, "messages": conversation})
        prompt = bytes(server.engine.asked[-1][0]).decode()
    assert held is not None  # "any" leaves the model no choice
    assert "assistant: [weather Rome]\ntool: sunny\nassistant: " in prompt
    assert (second.content[0].text, second.stop_reason) == ("It is sunny.", "end_turn")


class Person(BaseModel):
    name: str
    age: int


def test_an_answer_is_held_to_a_schema_and_parsed() -> None:
    with Server(talker('{"name": "Ada", "age": 36}')) as server, client(server) as cli:
        message = cli.messages.parse(**ASK, output_format=Person)
        grammar = server.engine.asked[-1][1].grammar
        with cli.messages.stream(**ASK, output_format=Person) as stream:
            streamed = stream.get_final_message()
    assert message.parsed_output == streamed.parsed_output == Person(name="Ada", age=36)
    assert grammar.kind == "json_schema"
    assert json.loads(grammar.source)["required"] == ["name", "age"]


def test_the_older_name_of_the_format_means_the_same(server: Server) -> None:
    format = {"type": "json_schema", "schema": {"type": "object"}}
    grammars = []
    with Server(talker("{}")) as talking:
        for said in ({"output_format": format}, {"output_config": {"format": format}}):
            assert talking.post(MESSAGES, ASK | said).status == 200
            grammars.append(talking.engine.asked[-1][1].grammar)
    assert grammars[0] == grammars[1] is not None


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"system": "Be brief.", "tools": [WEATHER]},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"messages": messages("x" * 5000)},  # more than the context holds
    ],
)
def test_tokens_are_counted_as_the_prompt_would_have_them(said: dict[str, Any]) -> None:
    body = {name: value for name, value in ASK.items() if name != "max_tokens"} | said
    with Server(talker("{}", reasons=True)) as server, client(server) as cli:
        counted = cli.messages.count_tokens(**body).input_tokens
        assert server.engine.asked == []
        if "messages" in said:
            assert counted > 5000
            return
        assert cli.messages.create(**body, max_tokens=9).usage.input_tokens == counted


WORDS = st.sampled_from(
    [
        "Hm",
        " ",
        "é",
        "💡",
        "\n",
        "<think>",
        "</think>",
        "<tool",
        call("clock"),
        "x</tool_call>",
        '{"',
    ]
)


@settings(deadline=None, max_examples=60)
@given(words=st.lists(WORDS, max_size=8), most=st.integers(1, 120))
def test_a_stream_says_what_the_whole_answer_says(
    talking: Server, words: list[str], most: int
) -> None:
    talking.engine.says = "".join(words)
    body = {**ASK, "tools": [WEATHER, CLOCK], "max_tokens": most, "stop_sequences": ["Hm \n"]}
    whole = talking.post(MESSAGES, body).json
    try:
        streamed = put_together(events(talking, body))
    except json.JSONDecodeError:
        assert whole["stop_reason"] == "max_tokens"  # in the midst of a call
        return
    for message in (whole, streamed):
        del message["id"]
        for block in message["content"]:
            block.pop("id", None)
    assert whole == streamed


@pytest.fixture(scope="module")
def talking() -> Any:
    with Server(talker("", reasons=True)) as server:
        yield server
