"""Items of the responses API to and from messages as chat templates know them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from inarch_server.openai.responses.protocol import (
    FunctionCall,
    FunctionCallOutput,
    InputItem,
    InputMessage,
    ReasoningItem,
)

Messages = list[dict[str, Any]]
Item = dict[str, Any]
PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fc_output",
}


def given_items(given: str | Sequence[InputItem]) -> list[Item]:
    """The input of a request as it is told again: each item with an id."""
    if isinstance(given, str):
        given = [InputMessage(role="user", content=given)]
    return [_given(item) for item in given]


def _given(item: InputItem) -> Item:
    shown = item.model_dump(mode="json", exclude_none=True) | {"status": "completed"}
    shown["id"] = f"{PREFIXES[item.type]}_{uuid.uuid4().hex}"
    match item:
        case InputMessage(role="assistant"):
            part = {"type": "output_text", "text": item.content, "annotations": []}
            shown["content"] = [part]
        case InputMessage():
            shown["content"] = [{"type": "input_text", "text": item.content}]
        case ReasoningItem():
            shown["summary"] = []
    return shown


def to_messages(given: str | Sequence[InputItem]) -> Messages:
    """What a model said in one turn is several items here, and one message there."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: Messages = []
    for item in given:
        match item:
            case InputMessage(role="assistant"):
                turn = _turn(messages, "content", "tool_calls")
                turn["content"] = item.content
            case InputMessage():
                messages.append({"role": item.role, "content": item.content})
            case FunctionCall():
                function = {"name": item.name, "arguments": item.arguments or "{}"}
                call = {"id": item.call_id, "type": "function", "function": function}
                _turn(messages).setdefault("tool_calls", []).append(call)
            case FunctionCallOutput():
                result = {"role": "tool", "tool_call_id": item.call_id, "content": item.output}
                messages.append(result)
            case ReasoningItem():
                if item.text:
                    turn = _turn(messages, "reasoning_content", "content", "tool_calls")
                    turn["reasoning_content"] = item.text
    return messages


def output_to_messages(output: Sequence[Item]) -> Messages:
    """The items of an answer, for the conversation that goes on from it."""
    items: list[Any] = []
    for item in output:
        match item["type"]:
            case "message":
                text = "".join(part["text"] for part in item["content"])
                items.append(InputMessage(role="assistant", content=text))
            case "function_call":
                items.append(FunctionCall.model_validate(item))
            case "reasoning":
                items.append(ReasoningItem.model_validate(item))
    return to_messages(items)


def _turn(messages: Messages, *taken: str) -> dict[str, Any]:
    """The message that the model is in the midst of; a new one if it has one of `taken` already."""
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or any(last.get(name) for name in taken):
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]
