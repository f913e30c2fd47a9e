"""From a conversation, with what was said of tools and of reasoning, to the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inarch.engine.text.tool_prompt import with_tools
from inarch.errors import InvalidRequestError

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.answering.conversation import Conversation

NO_EFFORT = "none"
ON = "on"  # to reason, as much as the model likes


def render(engine: AsyncEngine, asked: Conversation) -> str:
    """The prompt. Raises InvalidRequestError if the template refuses it."""
    template = engine.tokenizer.chat_template
    messages: Sequence[Mapping[str, Any]] = asked.messages
    if "developer" not in template.source:
        messages = [_without_developer(message) for message in messages]
    given = asked.tools if asked.choice is not None else ()
    messages, tools = with_tools(template, engine.formats, messages, given, asked.name("tools"))
    read = variables(engine, asked)
    try:
        return engine.tokenizer.apply_chat_template(messages, tools=tools, **read)
    except InvalidRequestError as error:
        raise InvalidRequestError(str(error), param=asked.name("messages")) from None


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


def _without_developer(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Newer name, older template."""
    return {**message, "role": "system"} if message["role"] == "developer" else message
