"""The request of /v1/responses: input items, tools and text format in that API's own shape."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar
from inarch.parsing import Choice, Tool
from inarch_server.answering.response_format import json_grammar
from inarch_server.answering.sampling_body import SamplingBody, Unsupported, refused
from inarch_server.answering.terms import TermsBody
from inarch_server.http.body import Body, shown
from inarch_server.openai.chat_protocol import (
    NO_ARGUMENTS,
    Effort,
    Mode,
    ToolName,
    chosen,
    text_or_object,
)

TEXT_PARTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


def _joined_parts(value: Any) -> Any:
    """Content given as a list of parts becomes one text."""
    if not isinstance(value, list):
        return value
    texts = []
    for i, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else part
        if kind == "input_json" and isinstance(part.get("data"), dict | list):
            texts.append(json.dumps(part["data"], ensure_ascii=False))
            continue
        if not isinstance(kind, str) or kind not in TEXT_PARTS:
            raise ValueError(f"part {i} must be text (all the model reads), not {shown(kind)}")
        if not isinstance(part.get(TEXT_PARTS[kind]), str):
            raise ValueError(f"part {i} lacks its {TEXT_PARTS[kind]}")
        texts.append(part[TEXT_PARTS[kind]])
    return "\n".join(texts)


class TextPart(Body):
    type: Literal["input_text", "output_text", "text"]
    text: str


Text = Annotated[str, BeforeValidator(_joined_parts, json_schema_input_type=str | list[TextPart])]


class InputMessage(Body):
    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer", "assistant"]
    content: Text


class FunctionCall(Body):
    type: Literal["function_call"]
    call_id: str
    name: str = Field(min_length=1)
    arguments: str


class FunctionCallOutput(Body):
    type: Literal["function_call_output"]
    call_id: str
    output: Text


class ReasoningText(Body):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Body):
    """Reasoning of an earlier answer, as this server gave it: in clear."""

    type: Literal["reasoning"]
    content: list[ReasoningText] | None = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content or ())


def _kind(value: Any) -> Any:
    """Which item; a message may leave its type out."""
    return value.get("type", "message") if isinstance(value, dict) else getattr(value, "type", None)


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(
        _kind,
        custom_error_type="unknown_item",
        custom_error_message="must be a message, function_call, function_call_output or reasoning",
    ),
]


class FunctionTool(Body):
    """`strict` makes no difference: arguments are always held to their schema."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def tool(self) -> Tool:
        return Tool(self.name, self.parameters or NO_ARGUMENTS, self.description or "")


class AllowedFunction(Body):
    type: Literal["function"]
    name: str


class ToolChoice(Body):
    type: Literal["function", "allowed_tools"]
    name: str | None = None  # of the function
    mode: Literal["auto", "required"] = "auto"
    tools: list[AllowedFunction] = Field(default=[])


class TextFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    description: str | None = None
    strict: bool | None = None

    def grammar(self) -> Grammar | None:
        if self.type == "text":
            return None
        schema = self.schema_ if self.type == "json_schema" else None
        return json_grammar(schema, strict=self.strict is True)


class TextConfig(Body):
    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Body):
    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None  # answered in full, in clear


class ResponsesRequest(SamplingBody, TermsBody):
    input: Annotated[
        Annotated[str, Tag("text")] | Annotated[list[InputItem], Tag("object")],
        Discriminator(text_or_object),
    ]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: (
        Annotated[Mode | Annotated[ToolChoice, Tag("object")], Discriminator(text_or_object)] | None
    ) = None
    parallel_tool_calls: bool | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    user: str | None = None
    truncation: Literal["disabled"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    n: Literal[1] | None = None
    max_tokens: Annotated[Any, refused("use max_output_tokens")] = None
    background: Annotated[Any, refused("wait for the answer, or stream it")] = None
    conversation: Annotated[Any, refused("use previous_response_id")] = None
    prompt: Annotated[Any, refused("send instructions and input")] = None
    context_management: Unsupported = None

    @property
    def wants_logprobs(self) -> bool:
        return self.top_logprobs is not None or "message.output_text.logprobs" in (
            self.include or ()
        )

    def calling(self) -> tuple[list[Tool], Choice | None]:
        """The tools, and the choice among them. Raises InvalidRequestError."""
        tools = [tool.tool() for tool in self.tools or ()]
        parallel, choice = self.parallel_tool_calls is not False, self.tool_choice
        if not isinstance(choice, ToolChoice):
            return chosen(tools, choice or "auto", None, parallel)
        if choice.type == "allowed_tools":
            return chosen(tools, choice.mode, [tool.name for tool in choice.tools], parallel)
        if choice.name is None:
            raise InvalidRequestError("tool_choice.name is required", param="tool_choice.name")
        return chosen(tools, "named", [choice.name], parallel)
