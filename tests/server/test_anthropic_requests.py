"""What of a request to /v1/messages reaches the model, and how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inarch.parsing import Choice
from inarch_server.anthropic.protocol import MessagesRequest

from .anthropic_talk import ASK, CLOCK, MESSAGES, WEATHER
from .harness import Server
from .talking import TEMPLATE, talker

# All of a message that a template may read.
SHOW_ALL = (
    "{% for m in messages %}{{ m | tojson }}\n{% endfor %}"
    "{% if enable_thinking is defined %}thinking={{ enable_thinking }}\n{% endif %}"
    "{% if reasoning_effort is defined %}effort={{ reasoning_effort }}\n{% endif %}"
    "{% if tools %}{% endif %}"
)


def told(body: dict[str, Any], **server: Any) -> list[dict[str, Any]]:
    """The messages that the chat template gets."""
    lines = prompt(body, **server).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def prompt(body: dict[str, Any], template: str = SHOW_ALL, **further: Any) -> str:
    with Server(talker("Yes.", template=template, **further)) as server:
        answer = server.post(MESSAGES, ASK | body)
        assert answer.status == 200, answer.body
        return bytes(server.engine.asked[-1][0]).decode()


def turns(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said, "cache_control": {"type": "ephemeral"}}


USE = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}, "caller": None}


def result(**fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t1", **fields}


@pytest.mark.parametrize("system", ["Be brief.\nBe kind.", [text("Be brief."), text("Be kind.")]])
def test_a_system_prompt_comes_first(system: Any) -> None:
    assert told({"system": system}) == [
        {"role": "system", "content": "Be brief.\nBe kind."},
        {"role": "user", "content": "Hi"},
    ]


def test_turns_of_one_role_become_one() -> None:
    said = told(
        turns(
            ("user", "One."),
            ("user", [text("Two."), text("Three.")]),
            ("assistant", [text("A sen"), text("tence.")]),
            ("system", "Now hurry."),
            ("user", "Four."),
        )
    )
    assert said == [
        {"role": "user", "content": "One.\nTwo.\nThree."},
        {"role": "assistant", "content": "A sentence."},
        {"role": "system", "content": "Now hurry."},
        {"role": "user", "content": "Four."},
    ]


def test_thinking_and_calls_go_back_to_the_model_in_its_own_turn() -> None:
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "unsigned"}
    said = told(
        turns(
            ("user", "Weather?"),
            ("assistant", [thinking, text("I look."), USE]),
            ("user", [result(content=[text("sunny"), text("warm")]), text("And now?")]),
        )
    )
    function = {"name": "weather", "arguments": {"city": "Rome"}}
    assert said[1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "Hm.",
            "tool_calls": [{"id": "t1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "t1", "name": "weather", "content": "sunny\nwarm"},
        {"role": "user", "content": "And now?"},
    ]


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({"content": "lost", "is_error": True}, "Error: lost"),
        ({"content": "lost", "is_error": False}, "lost"),
        ({}, ""),
    ],
)
def test_a_result_may_be_an_error_or_nothing(fields: dict[str, Any], content: str) -> None:
    said = told(turns(("user", "x"), ("assistant", [USE]), ("user", [result(**fields)])))
    assert said[-1]["content"] == content


def test_an_answer_goes_on_from_a_last_turn_of_the_assistant() -> None:
    said = prompt(turns(("user", "Hi"), ("assistant", "I am a")), TEMPLATE)
    assert said == "user: Hi\nassistant: I am a"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, Choice("auto")),
        ({"type": "auto", "disable_parallel_tool_use": True}, Choice("auto", parallel=False)),
        ({"type": "any"}, Choice("required")),
        ({"type": "tool", "name": "clock"}, Choice("named", "clock")),
        (
            {"type": "tool", "name": "clock", "disable_parallel_tool_use": True},
            Choice("named", "clock", parallel=False),
        ),
        ({"type": "none"}, None),
        (None, Choice("auto")),
    ],
)
def test_the_choice_among_tools_is_the_same_in_other_words(
    choice: Any, expected: Choice | None
) -> None:
    body = MessagesRequest.model_validate(ASK | {"tools": [WEATHER, CLOCK], "tool_choice": choice})
    tools, chosen = body.calling()
    assert chosen == expected
    assert [(tool.name, tool.parameters) for tool in tools] == [
        (tool["name"], tool["input_schema"]) for tool in (WEATHER, CLOCK)
    ]


@pytest.mark.parametrize(
    ("said", "switch"),
    [
        ({}, ""),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "thinking=True\n"),
        ({"thinking": {"type": "adaptive"}}, "thinking=True\n"),
        ({"thinking": {"type": "disabled"}}, "thinking=False\neffort=none\n"),
        ({"output_config": {"effort": "low"}}, "thinking=True\neffort=low\n"),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
            "thinking=True\neffort=max\n",
        ),
    ],
)
def test_how_much_to_think_reaches_the_template(said: dict[str, Any], switch: str) -> None:
    assert prompt(said, reasons=True).endswith("}\n" + switch)


@pytest.mark.parametrize("reasons", [False, True])
@pytest.mark.parametrize("thinking", ["enabled", "adaptive", "disabled"])
def test_a_model_without_a_switch_does_as_it_does(thinking: str, reasons: bool) -> None:
    body = ASK | {"thinking": {"type": thinking}}
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
    with Server(talker("Yes.", template=template, reasons=reasons)) as server:
        answer = server.post(MESSAGES, body)
    can = {"enabled": reasons, "adaptive": True, "disabled": not reasons}[thinking]
    assert answer.status == (200 if can else 400)
    if not can:
        assert "thinking" in answer.error["message"]


def test_sampling_fields_of_this_server_are_understood_too() -> None:
    said = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 3, "min_p": 0.1, "priority": 2}
    with Server(talker("Yes.")) as server:
        assert server.post(MESSAGES, ASK | said | {"stop_sequences": ["a", "b"]}).status == 200
        params = server.engine.asked[-1][1]
    assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.9, 7)
    assert (params.seed, params.min_p, params.stop) == (3, 0.1, ("a", "b"))
    assert params.max_tokens == ASK["max_tokens"]


def test_what_means_nothing_here_is_ignored() -> None:
    further = {
        "metadata": {"user_id": "me"},
        "service_tier": "auto",
        "cache_control": {"type": "ephemeral"},
        "speed": "fast",
    }
    assert told(further) == [{"role": "user", "content": "Hi"}]
