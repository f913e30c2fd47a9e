"""Tools in a conversation, for chat templates that read them and for those that do not.

A template that reads `tools` gets the conversation as it is. For any other, tools become a system
message that says how to call them, calls made earlier become what the model would have written, and
their results messages of the user: so tools work with every model that follows instructions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from inarch.engine.text.chat_template import ChatTemplate
from inarch.errors import InvalidRequestError
from inarch.formats import DEFAULT_TOOLS, Formats
from inarch.parsing import Tool

Messages = Sequence[Mapping[str, Any]]

INSTRUCTIONS = """\
You can call these functions, each given with the JSON schema of its arguments:
%s
To call one, answer with a JSON object and nothing else:
{"name": the function's name, "arguments": an object of its arguments}"""


def with_tools(
    template: ChatTemplate, formats: Formats, messages: Messages, tools: Sequence[Tool], called: str
) -> tuple[Messages, list[dict[str, Any]] | None]:
    """Messages and tools for the template. called: what the caller calls `tools`, for refusals."""
    if "tools" in template.variables:
        return messages, [described(tool) for tool in tools] or None
    plain = _in_plain_text(messages)
    if not tools:
        return plain, None
    if formats.tools is None or formats.tools.name != DEFAULT_TOOLS:
        raise InvalidRequestError(
            "the chat template of this model reads no tools: start it with one that does"
            f" (--chat-template FILE), or with --tool-call-parser {DEFAULT_TOOLS}, which tells the"
            " model in words",
            param=called,
        )
    return _with_instructions(plain, tools), None


def described(tool: Tool) -> dict[str, Any]:
    """As OpenAI's chat API, and so every template, has it."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}


def _in_plain_text(messages: Messages) -> list[Mapping[str, Any]]:
    """The same conversation without the role of a tool."""
    plain: list[Mapping[str, Any]] = []
    for is_result, group in groupby(messages, lambda message: message["role"] == "tool"):
        if is_result:
            # Results that follow one another are one message: many templates want roles to alternate.
            results = [f"Result: {message.get('content') or ''}" for message in group]
            plain.append({"role": "user", "content": "\n".join(results)})
        else:
            plain += [_as_written(m) if m.get("tool_calls") else m for m in group]
    return plain


def _with_instructions(
    messages: list[Mapping[str, Any]], tools: Sequence[Tool]
) -> list[Mapping[str, Any]]:
    functions = "\n".join(json.dumps(described(t)["function"], ensure_ascii=False) for t in tools)
    text = INSTRUCTIONS % functions
    if messages and messages[0]["role"] in ("system", "developer"):
        first, *rest = messages
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *rest]
    return [{"role": "system", "content": text}, *messages]


def _as_written(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Earlier calls as the instructions have them."""
    calls = [call["function"] for call in message["tool_calls"]]
    written = [f'{{"name": {json.dumps(c["name"])}, "arguments": {c["arguments"]}}}' for c in calls]
    content = "\n".join([*filter(None, [message.get("content")]), *written])
    return {"role": "assistant", "content": content}
