"""Stand-ins that call tools and reason, in real formats, and what clients send them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from inarch.formats import Formats
from inarch_formats.bare_json import BARE_JSON
from inarch_formats.hermes import Hermes
from inarch_formats.thinking import THINKING

from .standin import CONTEXT, StandIn

KINDS = ("json_object", "json_schema", "regex", "ebnf", "structural_tag")
# Reads tools, and puts calls back as the model wrote them.
TEMPLATE = (
    "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}"
    "{{ m.role }}: {{ m.reasoning_content or '' }}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "[{{ c.function.name }} {{ c.function.arguments.city }}]{% endfor %}"
    "{{ '\n' }}{% endfor %}"
    "{% if enable_thinking is defined %}thinking={{ enable_thinking }}\n{% endif %}"
    "assistant: "
)
(PLAIN,) = (format for format in BARE_JSON if format.name == "json")
(QWEN,) = (format for format in THINKING if format.name == "qwen3")
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "Tell the weather", "parameters": SCHEMA},
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}


def call(name: str, **arguments: Any) -> str:
    """A call as Hermes models write it."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def talker(
    says: str | None = None,
    *,
    reasons: bool = False,
    template: str = TEMPLATE,
    formats: Formats | None = None,
    kinds: tuple[str, ...] = KINDS,
    context: int = CONTEXT,
) -> StandIn:
    engine = StandIn(template=template, context=context)
    engine.says = says
    engine.formats = formats or Formats(tools=Hermes(), reasoning=QWEN if reasons else None)
    engine.info = msgspec.structs.replace(engine.info, grammar_kinds=kinds)
    return engine
