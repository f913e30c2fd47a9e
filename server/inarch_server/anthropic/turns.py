"""From Anthropic's turns of blocks to messages as chat templates know them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inarch.errors import InvalidRequestError
from inarch_server.anthropic.protocol import (
    InputMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)

Messages = list[dict[str, Any]]


def to_messages(system: str | None, turns: Sequence[InputMessage]) -> Messages:
    """Turns of one role that follow one another become one, as that API promises.

    Results of tools are blocks of the user there, and messages of their own here.
    """
    messages: Messages = [{"role": "system", "content": system}] if system else []
    names: dict[str, str] = {}  # of the tools that were called, by id
    for turn in turns:
        for block in turn.blocks:
            match block:
                case TextBlock():
                    _add_text(messages, turn.role, block.text)
                case ThinkingBlock():
                    message = _message(messages, "assistant")
                    message["reasoning_content"] = (
                        message.get("reasoning_content", "") + block.thinking
                    )
                case ToolUseBlock():
                    names[block.id] = block.name
                    _add_call(messages, block)
                case ToolResultBlock():
                    messages.append(_result(block, names))
    if not messages:
        raise InvalidRequestError("messages hold nothing", param="messages")
    return messages


def _message(messages: Messages, role: str) -> dict[str, Any]:
    """The last message if it is of `role`, else a new one."""
    if not messages or messages[-1]["role"] != role:
        messages.append({"role": role, "content": ""})
    return messages[-1]


def _add_text(messages: Messages, role: str, text: str) -> None:
    """What a model said in several blocks may be one sentence; others' blocks are paragraphs."""
    message = _message(messages, role)
    between = "\n" if message["content"] and role != "assistant" else ""
    message["content"] += between + text


def _add_call(messages: Messages, block: ToolUseBlock) -> None:
    function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
    call = {"id": block.id, "type": "function", "function": function}
    _message(messages, "assistant").setdefault("tool_calls", []).append(call)


def _result(block: ToolResultBlock, names: dict[str, str]) -> dict[str, Any]:
    content = f"Error: {block.content}" if block.is_error else block.content
    result = {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}
    if block.tool_use_id in names:
        result["name"] = names[block.tool_use_id]
    return result
