"""Functions that the model calls: described to it, run, and answered to, until it answers itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

import inarch.lang as sgl
from inarch.errors import InvalidRequestError
from inarch.lang import State

pytestmark = pytest.mark.timeout(60)
Digit = Annotated[int, Field(ge=0, le=9)]


def add(first: Digit, second: Digit) -> int:
    """Add two digits."""
    seen.append((first, second))
    return first + second


async def fails(why: Literal["reasons"]) -> str:
    raise ValueError(f"for {why}")


seen: list[tuple[int, int]] = []


@sgl.function
def ask(s: State, tools: list[Any]) -> None:
    s += sgl.user("What is 2 + 3?")
    s += sgl.assistant(sgl.gen("answer", 48, tools=tools, tool_choice="required"))
    s += sgl.user("Thanks.")
    s += sgl.assistant(sgl.gen("end", 8))


def test_a_call_is_run_and_its_answer_told() -> None:
    seen.clear()
    state = ask.run([add], temperature=0)
    (call, *_) = state.get_meta_info("answer")["tool_calls"]
    assert call["name"] == "add"
    assert call["result"] == str(sum(seen[0]))
    _, asked, told, answered, *_ = state.messages()
    assert asked["tool_calls"][0]["function"]["name"] == "add"
    assert told == {
        "role": "tool", "content": call["result"], "tool_call_id": call["id"], "name": "add",
    }  # fmt: skip
    assert answered["role"] == "assistant"
    assert state.messages()[-1]["content"] == state["end"]


def test_a_call_that_fails_tells_the_model_why() -> None:
    state = ask.run([fails], temperature=0)
    (call, *_) = state.get_meta_info("answer")["tool_calls"]
    assert call["result"] == "Error: ValueError: for reasons"


def test_a_schema_describes_what_annotations_cannot() -> None:
    schema = {
        "type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"],
        "additionalProperties": False,
    }  # fmt: skip
    weather = sgl.Tool("weather", schema, lambda city: {"in": city}, "The weather.")
    state = ask.run([weather], temperature=0)
    assert state.get_meta_info("answer")["tool_calls"][0]["result"] == '{"in": "Rome"}'


def by_place(first: int, /) -> int:
    return first


def test_what_is_no_tool_is_refused() -> None:
    for tools, message in (
        ([5], "a tool is a function"),
        ([add, add], "two tools named add"),
        ([by_place], "by place alone"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            sgl.gen("x", tools=tools)
    with pytest.raises(InvalidRequestError, match="leave the grammar out"):
        sgl.gen("x", tools=[add], regex="a")
    with pytest.raises(sgl.ProgramError, match="in a message of the assistant"):
        plain.run()


@sgl.function
def plain(s: State) -> None:
    s += "a" + sgl.gen("x", tools=[add])
