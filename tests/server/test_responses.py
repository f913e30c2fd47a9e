"""/v1/responses, as OpenAI's own client understands it: items, events, and conversations that go on."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from inarch.errors import InvalidRequestError
from inarch_server.openai.responses.store import ResponseStore

from .harness import Server
from .standin import StandIn
from .talking import SCHEMA, call, talker

PATH = "/v1/responses"
WEATHER = {"type": "function", "name": "weather", "description": "Tell it", "parameters": SCHEMA}
THOUGHTS = "Hm.</think>"  # where calls are held the prompt begins it


def prompt_of(server: Server) -> str:
    return bytes(server.engine.asked[-1][0]).decode()


def events(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream, whose names, types and numbers must agree."""
    raw = server.post(PATH, {**body, "stream": True}).body.decode()
    *blocks, rest = raw.split("\n\n")
    assert rest == ""
    found = []
    for number, block in enumerate(blocks):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        found.append(event)
    return found


def nameless(value: Any) -> Any:
    """Without what is new with every response."""
    fresh = ("id", "item_id", "call_id", "created_at", "completed_at")
    fresh += ("parsed", "parsed_arguments")  # what the client adds
    if isinstance(value, dict):
        return {key: nameless(item) for key, item in value.items() if key not in fresh}
    return [nameless(item) for item in value] if isinstance(value, list) else value


def test_an_answer_is_a_message_with_usage_and_status(server: Server) -> None:
    with server.openai() as client:
        response = client.responses.create(model="standin", input="Hi", metadata={"a": "b"})
    assert response.id.startswith("resp_")
    assert (response.object, response.status, response.model) == (
        "response",
        "completed",
        "standin",
    )
    assert response.output_text == "user: Hi\nassistant: "
    (item,) = response.output
    assert (item.type, item.role, item.status) == ("message", "assistant", "completed")
    assert response.usage.input_tokens == len("user: Hi\nassistant: ")
    assert response.usage.output_tokens == response.usage.input_tokens + 1
    assert response.usage.output_tokens_details.reasoning_tokens == 0
    assert response.metadata == {"a": "b"}
    assert response.error is None
    assert response.completed_at is not None


def test_events_come_in_the_order_that_clients_rely_on() -> None:
    with Server(talker(THOUGHTS + "Yes." + call("weather", city="Bonn"), reasons=True)) as server:
        found = events(server, {"input": "Hi", "tools": [WEATHER]})
    kinds = [event["type"].removeprefix("response.") for event in found]
    merged = [kind for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]
    text = ["content_part.added", "output_text.delta", "output_text.done", "content_part.done"]
    assert merged == [
        "created",
        "in_progress",
        "output_item.added",
        *(kind.replace("output_text", "reasoning_text") for kind in text),
        "output_item.done",
        "output_item.added",
        *text,
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    indices = [e["output_index"] for e in found if "output_index" in e]
    assert indices == sorted(indices)
    for event in found:
        if event["type"] == "response.output_item.done":
            assert event["item"] == found[-1]["response"]["output"][event["output_index"]]


def test_openais_client_follows_the_stream_to_the_same_response() -> None:
    says = THOUGHTS + "Yes." + call("weather", city="Bonn") + call("weather", city="Köln")
    with Server(talker(says, reasons=True)) as server, server.openai() as client:
        asked: dict[str, Any] = {"model": "standin", "input": "Hi", "tools": [WEATHER]}
        with client.responses.stream(**asked) as stream:
            for event in stream:
                assert event.type.startswith("response.")
            streamed = stream.get_final_response()
        whole = client.responses.create(**asked)
    assert nameless(streamed.model_dump(exclude={"output": True})) == nameless(
        whole.model_dump(exclude={"output": True})
    )
    assert [item.type for item in streamed.output] == [
        "reasoning",
        "message",
        *["function_call"] * 2,
    ]
    assert nameless(streamed.to_dict()["output"]) == nameless(whole.to_dict()["output"])
    assert json.loads(whole.output[3].arguments) == {"city": "Köln"}
    assert whole.output[0].content[0].text == "Hm."
    assert whole.usage.output_tokens_details.reasoning_tokens == len(THOUGHTS)


@settings(max_examples=15, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(["<think>", "</think>", "Hm", "ä", call("weather", city="é"), "<tool_"]),
        max_size=6,
    ),
    most=st.integers(1, 80),
)
def test_a_stream_ends_with_the_response_that_comes_whole(parts: list[str], most: int) -> None:
    body = {"input": "Hi", "tools": [WEATHER], "max_output_tokens": most}
    with Server(talker("".join(parts) or "-", reasons=True)) as server:
        whole = server.post(PATH, body).json
        found = events(server, body)
    streamed = found[-1]["response"]
    for response in (whole, streamed):
        response["usage"].pop("input_tokens_details")
    assert nameless(streamed) == nameless(whole)
    texts: dict[int, str] = {}
    for event in found:
        if event["type"].endswith(".delta"):
            index = event["output_index"]
            texts[index] = texts.get(index, "") + event["delta"]
    said = [
        i["arguments"] if "arguments" in i else i["content"][0]["text"] for i in whole["output"]
    ]
    assert [texts.get(i, "") for i in range(len(said))] == said


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_max_output_tokens_cuts_is_incomplete_and_says_why(stream: bool) -> None:
    with Server(StandIn()) as server:
        body = {"input": "Hi", "max_output_tokens": 4}
        if stream:
            *_, last = events(server, body)
            assert last["type"] == "response.incomplete"
            response = last["response"]
        else:
            response = server.post(PATH, body).json
    assert response["status"] == response["output"][0]["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["content"][0]["text"] == "user"


def test_a_stream_that_fails_half_way_ends_with_a_failed_response(server: Server) -> None:
    server.engine.fail_after = 2
    *_, last = events(server, {"input": "Hi"})
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert "on fire" in last["response"]["error"]["message"]
    assert server.post(PATH, {"input": "Hi"}).status == 500


def test_a_conversation_goes_on_from_a_response_without_its_instructions() -> None:
    with Server(talker("Hello.")) as server, server.openai() as client:
        first = client.responses.create(model="standin", instructions="Be kind.", input="Hi")
        assert prompt_of(server) == "system: Be kind.\nuser: Hi\nassistant: "
        second = client.responses.create(
            model="standin", input="And?", previous_response_id=first.id
        )
        assert prompt_of(server) == "user: Hi\nassistant: Hello.\nuser: And?\nassistant: "
        client.responses.create(model="standin", input="So?", previous_response_id=second.id)
        assert prompt_of(server).startswith("user: Hi\nassistant: Hello.\nuser: And?\nassistant: H")


def test_calls_and_their_results_go_on_by_id_or_by_items() -> None:
    with Server(talker(THOUGHTS + call("weather", city="Rom"), reasons=True)) as server:
        first = server.post(PATH, {"input": "Weather?", "tools": [WEATHER]}).json
        (made,) = (item for item in first["output"] if item["type"] == "function_call")
        result = {"type": "function_call_output", "call_id": made["call_id"], "output": "rain"}
        ways = [
            {"input": [result], "previous_response_id": first["id"]},
            {"input": [{"role": "user", "content": "Weather?"}, *first["output"], result]},
        ]
        prompts = []
        for way in ways:
            assert server.post(PATH, {**way, "tools": [WEATHER]}).status == 200
            prompts.append(prompt_of(server))
    assert prompts[0] == prompts[1]
    assert prompts[0].endswith(
        "user: Weather?\nassistant: Hm.[weather Rom]\ntool: rain\nassistant: <think>"
    )


def test_items_of_one_turn_are_one_message_and_those_of_two_are_two() -> None:
    def thought(text: str) -> dict[str, Any]:
        return {"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}]}

    turns = [
        {"role": "user", "content": "a"},
        thought("1"),
        {"role": "assistant", "content": "b"},
        thought("2"),
        {"role": "assistant", "content": "c"},
    ]
    with Server(talker("x")) as server:
        server.post(PATH, {"input": turns})
        assert prompt_of(server) == "user: a\nassistant: 1b\nassistant: 2c\nassistant: "


def test_parts_of_text_are_joined_and_a_developer_is_a_system() -> None:
    turns = [
        {"role": "developer", "content": [{"type": "input_text", "text": "a"}]},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": t} for t in "bc"],
        },
    ]
    with Server(talker("x")) as server:
        server.post(PATH, {"input": turns})
        assert prompt_of(server) == "system: a\nuser: b\nc\nassistant: "


class City(BaseModel):
    name: str


def test_openais_client_parses_into_a_model_of_pydantic() -> None:
    with Server(talker('{"name": "Rom"}')) as server, server.openai() as client:
        response = client.responses.parse(model="standin", input="Rome?", text_format=City)
        grammar = server.engine.asked[-1][1].grammar
    assert response.output_parsed == City(name="Rom")
    assert (grammar.kind, json.loads(grammar.source)["required"]) == ("json_schema", ["name"])


def test_log_probabilities_come_with_the_text(server: Server) -> None:
    body = {"input": "Hi", "top_logprobs": 1, "include": ["message.output_text.logprobs"]}
    (item,) = server.post(PATH, body).json["output"]
    told = item["content"][0]["logprobs"]
    assert "".join(entry["token"] for entry in told[:-1]) == item["content"][0]["text"]
    assert told[0]["top_logprobs"][0]["logprob"] == -0.5
    deltas = [e for e in events(server, body) if e["type"] == "response.output_text.delta"]
    assert [entry for delta in deltas for entry in delta["logprobs"]] == told


def test_a_response_is_kept_until_it_is_deleted(server: Server) -> None:
    with server.openai() as client:
        made = client.responses.create(model="standin", input="Hi")
        assert client.responses.retrieve(made.id) == made
        client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError, match="not kept here"):
            client.responses.retrieve(made.id)


def test_a_response_that_is_not_to_be_stored_is_not(server: Server) -> None:
    made = server.post(PATH, {"input": "Hi", "store": False}).json
    assert made["store"] is False
    again = server.post(PATH, {"input": "Hi", "previous_response_id": made["id"]})
    assert (again.status, again.error["param"]) == (404, "previous_response_id")


def test_nothing_can_be_cancelled_and_it_says_why(server: Server) -> None:
    made = server.post(PATH, {"input": "Hi"}).json
    refused = server.post(f"{PATH}/{made['id']}/cancel", {})
    assert refused.status == 400
    assert "background" in refused.error["message"]
    assert server.post(f"{PATH}/none/cancel", {}).status == 404


def test_what_was_asked_is_told_page_by_page(server: Server) -> None:
    with server.openai() as client:
        asked: list[Any] = [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "three"},
        ]
        first = client.responses.create(model="standin", input=asked)
        items: Any = list(client.responses.input_items.list(first.id, order="asc", limit=3))
        assert [item.type for item in items] == [
            "message",
            "message",
            *(i["type"] for i in asked[2:]),
        ]
        assert [items[0].content[0].text, items[1].content[0].text] == ["one", "two"]
        assert (items[2].name, items[3].output) == ("f", "three")
        newest = client.responses.input_items.list(first.id, limit=1)
        assert (newest.data[0].id, newest.has_more) == (items[3].id, True)  # type: ignore[attr-defined]
        second = client.responses.create(
            model="standin", input="more", previous_response_id=first.id
        )
        assert len(list(client.responses.input_items.list(second.id))) == 1
    path = f"{PATH}/{first.id}/input_items"
    assert server.get(f"{PATH}/resp_none/input_items").status == 404
    for query in ("limit=0", "limit=x", "limit=101", "order=up", "after=nothing"):
        answer = server.get(f"{path}?{query}")
        assert (answer.status, answer.error["param"]) == (400, query.partition("=")[0])


def test_the_store_forgets_the_oldest_and_the_old() -> None:
    store = ResponseStore(most=2, longest_s=60.0)
    for name in "abc":
        store.keep({"id": name}, [])
    assert store.get("c").response == {"id": "c"}
    with pytest.raises(InvalidRequestError):
        store.get("a")
    small = ResponseStore(most_bytes=3000)
    for name in "abc":
        small.keep({"id": name, "text": "x" * 1200}, [])
    small.delete("b")
    small.keep({"id": "d", "text": "x" * 1200}, [])
    assert small.get("c").response["id"] == "c"
    with pytest.raises(InvalidRequestError, match="kept here"):
        small.get("a")
    brief = ResponseStore(most=2, longest_s=-1.0)
    brief.keep({"id": "a"}, [])
    with pytest.raises(InvalidRequestError):
        brief.get("a")


@pytest.mark.parametrize(
    ("fields", "param", "fragment"),
    [
        ({}, "input", "is required"),
        ({"input": []}, "input", "must not be empty"),
        ({"input": 3}, "input", "got 3"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role", "king"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "must be a message"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content",
            "input_image",
        ),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
        ({"input": "x", "tool_choice": {"type": "function"}}, "tool_choice.name", "is required"),
        ({"input": "x", "background": True}, "background", "is not supported"),
        ({"input": "x", "conversation": "c"}, "conversation", "previous_response_id"),
        ({"input": "x", "max_tokens": 3}, "max_tokens", "max_output_tokens"),
        ({"input": "x", "max_output_tokens": -1}, "max_output_tokens", "got -1"),
        ({"input": "x", "n": 2}, "n", "got 2"),
        ({"input": "x", "truncation": "auto"}, "truncation", "disabled"),
        ({"input": "x", "text": {"format": {"type": "grammar"}}}, "text.format.type", "grammar"),
        ({"input": "x", "text": {"format": {"type": "json_object"}}}, "text.format", "pip install"),
        ({"input": "x", "reasoning": {"effort": "high"}}, "reasoning.effort", "cannot be honoured"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    server: Server, fields: dict[str, Any], param: str, fragment: str
) -> None:
    refused = server.post(PATH, fields)
    assert (refused.status, refused.error["param"]) == (400, param), refused.body
    assert fragment in refused.error["message"]
