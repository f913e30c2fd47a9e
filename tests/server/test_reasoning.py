"""Reasoning in chat completions: set apart, counted, switched on and off, and never held to a grammar."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.formats import Formats

from .harness import Server, messages
from .talking import QWEN, TEMPLATE, WEATHER, call, talker

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"messages": messages("Hi")}
SAYS = "<think>\nHm, hm.\n</think>\n\nYes."
END = tuple(b"</think>")


def whole(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client has put together at the end of a stream of one choice."""
    merged: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": {}}
    for event in events:
        for choice in event["choices"]:
            delta = choice["delta"]
            merged["content"] += delta.get("content") or ""
            merged["reasoning_content"] += delta.get("reasoning_content") or ""
            for entry in delta.get("tool_calls", ()):
                made = merged["calls"].setdefault(entry["index"], ["", ""])
                made[0] += entry["function"].get("name", "")
                made[1] += entry["function"]["arguments"]
            merged["finish_reason"] = choice["finish_reason"]
        merged["usage"] = event.get("usage") or merged.get("usage")
    return merged


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_is_apart_from_content_under_both_of_its_names_and_counted(stream: bool) -> None:
    with Server(talker(SAYS, reasons=True)) as server:
        if stream:
            body = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
            events = server.post(CHAT, body).events
            deltas = [c["delta"] for e in events for c in e["choices"]]
            assert all(d.get("reasoning") == d.get("reasoning_content") for d in deltas)
            message = whole(events)
            usage = message["usage"]
        else:
            answer = server.post(CHAT, ASK).json
            message, usage = answer["choices"][0]["message"], answer["usage"]
            assert message["reasoning"] == message["reasoning_content"]
    assert message["reasoning_content"].strip() == "Hm, hm."
    assert message["content"] == "Yes."
    # Up to and with the marker that ends it; a token is a byte here.
    reasoned = len(b"<think>\nHm, hm.\n</think>")
    assert usage["completion_tokens_details"] == {"reasoning_tokens": reasoned}


def test_reasoning_that_max_tokens_cuts_is_all_there_is() -> None:
    with Server(talker(SAYS, reasons=True)) as server:
        answer = server.post(CHAT, {**ASK, "max_tokens": 12}).json
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
    assert choice["message"]["reasoning_content"].strip() == "Hm,"
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 12}


def test_an_answer_without_reasoning_has_none_and_counts_none() -> None:
    with Server(talker("Yes.", reasons=True)) as server:
        answer = server.post(CHAT, ASK).json
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Yes."}
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_reasoning_can_stay_in_the_content() -> None:
    with Server(talker(SAYS, reasons=True)) as server:
        answer = server.post(CHAT, {**ASK, "separate_reasoning": False}).json
    assert answer["choices"][0]["message"]["content"] == SAYS


def test_reasoning_can_come_in_one_piece_when_it_is_over() -> None:
    with Server(talker(SAYS, reasons=True)) as server:
        body = {**ASK, "stream": True, "stream_reasoning": False}
        deltas = [e["choices"][0]["delta"] for e in server.post(CHAT, body).events]
        cut = server.post(CHAT, {**body, "max_tokens": 12}).events
    (reasoned,) = (d for d in deltas if "reasoning_content" in d)
    assert reasoned["reasoning_content"].strip() == "Hm, hm."
    assert whole(cut)["reasoning_content"].strip() == "Hm,"


@settings(max_examples=15, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            ["<think>", "</think>", "Hm", "ä", call("weather", city="é"), "<tool_", "\n"]
        ),
        max_size=6,
    )
)
def test_a_stream_says_what_the_whole_answer_says(parts: list[str]) -> None:
    engine = talker("".join(parts) or "-", reasons=True)
    body = {**ASK, "tools": [WEATHER]}
    with Server(engine) as server:
        answer = server.post(CHAT, body).json
        options = {"stream": True, "stream_options": {"include_usage": True}}
        streamed = whole(server.post(CHAT, {**body, **options}).events)
    choice = answer["choices"][0]
    message = choice["message"]
    calls = [list(c["function"].values()) for c in message.get("tool_calls", ())]
    assert streamed["content"] == (message["content"] or "")
    assert streamed["reasoning_content"] == message.get("reasoning_content", "")
    assert list(streamed["calls"].values()) == calls
    assert streamed["finish_reason"] == choice["finish_reason"]
    assert streamed["usage"] == {
        **answer["usage"],
        "prompt_tokens_details": streamed["usage"]["prompt_tokens_details"],
    }


@pytest.mark.parametrize(("effort", "thinks"), [("none", "False"), ("low", "True")])
def test_effort_reaches_the_switch_that_the_template_has(effort: str, thinks: str) -> None:
    with Server(talker(reasons=True)) as server:
        server.post(CHAT, {**ASK, "reasoning_effort": effort})
        assert f"thinking={thinks}\n" in bytes(server.engine.asked[-1][0]).decode()


def test_what_the_client_says_to_the_template_wins_over_effort() -> None:
    with Server(talker(reasons=True)) as server:
        body = {
            **ASK,
            "reasoning_effort": "high",
            "chat_template_kwargs": {"enable_thinking": False},
        }
        server.post(CHAT, body)
        assert "thinking=False" in bytes(server.engine.asked[-1][0]).decode()


def test_no_effort_asks_nothing_of_a_model_that_does_not_reason(server: Server) -> None:
    assert server.post(CHAT, {**ASK, "reasoning_effort": "none"}).status == 200


def test_an_answer_is_held_behind_reasoning_which_then_surely_begins() -> None:
    with Server(talker(SAYS, reasons=True)) as server:
        server.post(CHAT, {**ASK, "regex": "Yes\\."})
        prompt, params = server.engine.asked[-1]
    assert bytes(prompt).decode().endswith("assistant: <think>")
    assert (params.grammar.kind, params.grammar.after) == ("regex", END)


def test_an_answer_is_held_at_once_where_the_template_has_closed_the_reasoning() -> None:
    template = TEMPLATE + "<think>\n\n</think>\n\n"
    with Server(talker("Yes.", reasons=True, template=template)) as server:
        message = server.post(CHAT, {**ASK, "regex": "Yes\\."}).json["choices"][0]["message"]
        assert server.engine.asked[-1][1].grammar.after == ()
    assert message["content"] == "Yes."


def test_calls_are_held_behind_reasoning_too() -> None:
    says = "Hm.</think>" + call("weather", city="Rom")
    with Server(talker(says, reasons=True)) as server:
        body = {**ASK, "tools": [WEATHER], "tool_choice": "required"}
        message = server.post(CHAT, body).json["choices"][0]["message"]
        assert server.engine.asked[-1][1].grammar.after == END
    assert message["reasoning_content"] == "Hm."
    assert message["tool_calls"][0]["function"]["name"] == "weather"


def test_earlier_reasoning_reaches_the_template() -> None:
    turns = [
        *messages("a"),
        {"role": "assistant", "content": "b", "reasoning_content": "hm "},
        *messages("c"),
    ]
    with Server(talker(formats=Formats(reasoning=QWEN))) as server:
        server.post(CHAT, {"messages": turns})
        assert "assistant: hm b\n" in bytes(server.engine.asked[-1][0]).decode()
