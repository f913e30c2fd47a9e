"""The requests of /v1/messages and /v1/messages/count_tokens: Anthropic's blocks, tools, settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar
from inarch.parsing import Choice, Tool
from inarch_server.answering.response_format import json_grammar
from inarch_server.answering.sampling_body import SamplingBody, Unsupported, refused
from inarch_server.answering.terms import TermsBody
from inarch_server.http.body import Body, shown
from inarch_server.openai.chat_protocol import (
    Effort,
    ToolName,
    chosen,
    joined_parts,
    text_or_object,
)


class TextBlock(Body):
    type: Literal["text"]
    text: str


class ThinkingBlock(Body):
    """Reasoning of an earlier answer. Its signature says nothing here: this server trusts it."""

    type: Literal["thinking"]
    thinking: str


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: str
    name: str = Field(min_length=1)
    input: dict[str, Any]


Text = Annotated[str, BeforeValidator(joined_parts, json_schema_input_type=str | list[TextBlock])]


class ToolResultBlock(Body):
    type: Literal["tool_result"]
    tool_use_id: str
    content: Text = ""
    is_error: bool = False


ROLES = {
    "text": ("user", "assistant", "system"),
    "thinking": ("assistant",),
    "tool_use": ("assistant",),
    "tool_result": ("user",),
}


def _known_block(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(value, dict) and (not isinstance(kind, str) or kind not in ROLES):
        raise ValueError(
            f"a block must be of type {', '.join(ROLES)} (all that the model reads is text), not"
            f" {shown(kind)}"
        )
    return value


Block = Annotated[
    Annotated[
        TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")
    ],
    BeforeValidator(_known_block),
]


class InputMessage(Body):
    """Named unlike the answer, which is a message too."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[
        Annotated[str, Tag("text")] | Annotated[list[Block], Tag("object")],
        Discriminator(text_or_object),
    ]

    @property
    def blocks(self) -> Sequence[TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock]:
        if isinstance(self.content, str):
            return [TextBlock(type="text", text=self.content)]
        return self.content

    @model_validator(mode="after")
    def _blocks_fit_the_role(self) -> InputMessage:
        for i, block in enumerate(self.blocks):
            if self.role not in ROLES[block.type]:
                raise ValueError(f"block {i} of type {block.type} cannot come from {self.role}")
        return self


def _custom(value: Any) -> Any:
    if value not in (None, "custom"):
        raise ValueError(
            "must be custom: tools that the server itself would run, or that a model was trained on,"
            " are not supported; describe the tool with an input_schema"
        )
    return value


class CustomTool(Body):
    """`strict` makes no difference: inputs are always held to their schema."""

    type: Annotated[Literal["custom"] | None, BeforeValidator(_custom)] = None
    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    allowed_callers: list[Literal["direct"]] | None = None
    defer_loading: Unsupported = None
    input_examples: Annotated[Any, refused("put examples into the description")] = None

    def tool(self) -> Tool:
        return Tool(self.name, self.input_schema, self.description or "")


class ToolUseChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    """budget_tokens bounds nothing by itself: reasoning ends where the model ends it, or with
    max_tokens, below which the budget must be."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(default=None, ge=1)
    display: Literal["summarized", "omitted"] | None = None  # the former shows all of it


class OutputFormat(Body):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")

    def grammar(self) -> Grammar:
        return json_grammar(self.schema_)


class OutputConfig(Body):
    effort: Effort | None = None
    format: OutputFormat | None = None


class CountTokensRequest(SamplingBody):
    """What is said and asked; sampling fields change no count."""

    model: str | None = None
    messages: list[InputMessage] = Field(min_length=1)
    system: Text | None = None
    tools: list[CustomTool] | None = None
    tool_choice: ToolUseChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None  # where older clients have output_config.format

    n: Literal[1] | None = None
    stop: Annotated[Any, refused("use stop_sequences")] = None
    container: Unsupported = None
    context_management: Unsupported = None
    diagnostics: Unsupported = None
    inference_geo: Unsupported = None
    mcp_servers: Unsupported = None

    @model_validator(mode="after")
    def _no_contradictions(self) -> CountTokensRequest:
        config = self.output_config
        if self.output_format is not None and config is not None and config.format is not None:
            raise InvalidRequestError(
                "output_format is the older name of output_config.format: send one of them",
                param="output_format",
            )
        if self.effort_called == "output_config.effort" and self.thinks is False:
            raise InvalidRequestError(
                "output_config.effort says how much to think, and thinking is disabled: send one of"
                " them",
                param="output_config.effort",
            )
        return self

    @property
    def thinks(self) -> bool | None:
        """None: nothing is said of it."""
        return None if self.thinking is None else self.thinking.type != "disabled"

    @property
    def effort_called(self) -> str:
        """The field that says how much to think."""
        config = self.output_config
        told = config is not None and config.effort is not None
        return "output_config.effort" if told else "thinking"

    def grammar(self) -> tuple[Grammar | None, str]:
        """What the answer is held to, and the field that says so."""
        if self.output_config is not None and self.output_config.format is not None:
            return self.output_config.format.grammar(), "output_config.format"
        format = self.output_format
        return format.grammar() if format is not None else None, "output_format"

    def calling(self) -> tuple[list[Tool], Choice | None]:
        """The tools, and the choice among them. Raises InvalidRequestError."""
        tools = [tool.tool() for tool in self.tools or ()]
        choice = self.tool_choice
        if choice is None:
            return chosen(tools, "auto", None, parallel=True)
        parallel = not choice.disable_parallel_tool_use
        match choice.type:
            case "tool":
                if choice.name is None:
                    raise InvalidRequestError(
                        "tool_choice.name is required", param="tool_choice.name"
                    )
                return chosen(tools, "named", [choice.name], parallel)
            case "any":
                return chosen(tools, "required", None, parallel)
            case "auto" | "none" as mode:
                return chosen(tools, mode, None, parallel)


class MessagesRequest(CountTokensRequest, TermsBody):
    max_tokens: int  # 0 computes the prompt alone, so that the next request finds it in the cache
    stop_sequences: list[str] | None = None
    stream: bool | None = None

    @model_validator(mode="after")
    def _thinking_leaves_room(self) -> MessagesRequest:
        budget = self.thinking.budget_tokens if self.thinking is not None else None
        if budget is not None and budget >= self.max_tokens:
            raise InvalidRequestError(
                f"thinking.budget_tokens ({budget}) must be below max_tokens ({self.max_tokens})",
                param="thinking.budget_tokens",
            )
        return self
