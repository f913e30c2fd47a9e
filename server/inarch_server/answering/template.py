"""From a conversation to the prompt, for templates that read tools and for those that do not.

A template that reads `tools` gets the conversation as it is. For any other, tools become a system
message that says how to call them, calls made earlier become what the model would have written, and
their results messages of the user: so tools work with every model that follows instructions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from inarch.errors import InvalidRequestError
from inarch.formats import DEFAULT_TOOLS
from inarch.parsing import Tool

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.answering.conversation import Conversation

NO_EFFORT = "none"
ON = "on"  # to reason, as much as the model likes
INSTRUCTIONS = """\
You can call these functions, each given with the JSON schema of its arguments:
%s
To call one, answer with a JSON object and nothing else:
{"name": the function's name, "arguments": an object of its arguments}"""


def render(engine: AsyncEngine, asked: Conversation) -> str:
    """The prompt. Raises InvalidRequestError if the template refuses it."""
    template = engine.tokenizer.chat_template
    messages: Sequence[Mapping[str, Any]] = asked.messages
    if "developer" not in template.source:
        messages = [_without_developer(message) for message in messages]
    tools: list[dict[str, Any]] | None = None
    given = asked.tools if asked.choice is not None else ()
    if "tools" in template.variables:
        tools = [described(tool) for tool in given] or None
    else:
        messages = in_plain_text(engine, messages, given, asked.name("tools"))
    read = variables(engine, asked)
    try:
        return engine.tokenizer.apply_chat_template(messages, tools=tools, **read)
    except InvalidRequestError as error:
        raise InvalidRequestError(str(error), param=asked.name("messages")) from None


def described(tool: Tool) -> dict[str, Any]:
    """As OpenAI's chat API, and so every template, has it."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}


def variables(engine: AsyncEngine, asked: Conversation) -> dict[str, Any]:
    """What the template reads beside messages and tools; what the client says by name wins."""
    if asked.effort is None:
        return dict(asked.variables)
    known = engine.tokenizer.chat_template.variables
    reasons = asked.effort != NO_EFFORT
    switches: dict[str, Any] = {"enable_thinking": reasons, "thinking": reasons}
    if asked.effort != ON:
        switches["reasoning_effort"] = asked.effort
    read = {name: value for name, value in switches.items() if name in known}
    by_itself = asked.effort in (NO_EFFORT, ON) and reasons == (
        engine.formats.reasoning is not None
    )
    if not read and not by_itself:
        called = asked.name("effort")
        raise InvalidRequestError(
            f"{called} {asked.effort!r} cannot be honoured: the chat template of this model reads"
            f" none of {', '.join(switches)}; leave {called} out",
            param=called,
        )
    return {**read, **asked.variables}


def in_plain_text(
    engine: AsyncEngine, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool], called: str
) -> list[Mapping[str, Any]]:
    """The same conversation without the role of a tool, and with `tools` told in words."""
    plain: list[Mapping[str, Any]] = []
    for is_result, group in groupby(messages, lambda message: message["role"] == "tool"):
        if is_result:
            # Results that follow one another are one message: many templates want roles to alternate.
            results = [f"Result: {message.get('content') or ''}" for message in group]
            plain.append({"role": "user", "content": "\n".join(results)})
        else:
            plain += [_as_written(m) if m.get("tool_calls") else m for m in group]
    if not tools:
        return plain
    if engine.formats.tools is None or engine.formats.tools.name != DEFAULT_TOOLS:
        raise InvalidRequestError(
            "the chat template of this model reads no tools: start the server with one that does"
            f" (--chat-template FILE), or with --tool-call-parser {DEFAULT_TOOLS}, which tells the"
            " model in words",
            param=called,
        )
    return _with_instructions(plain, tools)


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


def _without_developer(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Newer name, older template."""
    return {**message, "role": "system"} if message["role"] == "developer" else message
