"""The request of /v1/chat/completions: messages, tools and the choice among them."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from inarch.errors import InvalidRequestError
from inarch.parsing import Choice, Tool
from inarch_server.answering.response_format import ResponseFormat
from inarch_server.answering.sampling_body import Unsupported, refused
from inarch_server.http.body import Body, shown
from inarch_server.openai.protocol import OpenAIBody

# Names go into grammars, markers and URLs of others: nothing that any of these could misread.
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.:/-]{1,128}$")]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
NO_ARGUMENTS: dict[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}
LEGACY = "it is the older form of tools and tool_choice: use those"


def joined_parts(value: Any) -> Any:
    """Content given as a list of parts becomes one text."""
    if not isinstance(value, list):
        return value
    texts = []
    for i, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else part
        if kind not in ("text", "refusal"):
            raise ValueError(
                f'part {i} must be of type "text" (all the model reads), not {shown(kind)}'
            )
        if not isinstance(part.get(kind), str):
            raise ValueError(f"part {i} lacks its {kind}")
        texts.append(part[kind])
    return "\n".join(texts)


class TextPart(Body):
    type: Literal["text"]
    text: str


class CalledFunction(Body):
    name: str = Field(min_length=1)
    arguments: str = "{}"  # JSON text


class ToolCall(Body):
    """A call that the model made earlier."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Body):
    """One message; further fields (name, reasoning_content ...) reach the chat template."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        str | None,
        BeforeValidator(joined_parts, json_schema_input_type=str | list[TextPart] | None),
    ] = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _only_an_assistant_may_be_silent(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a {self.role} message needs content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a {self.role} message cannot have tool_calls")
        return self

    def for_template(self) -> dict[str, Any]:
        """As chat templates expect it: nothing that is null, no empty list of calls."""
        message = self.model_dump(exclude_none=True)
        if not message.get("tool_calls"):
            message.pop("tool_calls", None)
        return message


class Function(Body):
    """`strict` makes no difference: arguments are always held to their schema."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def tool(self) -> Tool:
        return Tool(self.name, self.parameters or NO_ARGUMENTS, self.description or "")


class FunctionTool(Body):
    type: Literal["function"]
    function: Function


class FunctionName(Body):
    name: str


class AllowedFunction(Body):
    type: Literal["function"]
    function: FunctionName


class AllowedTools(Body):
    mode: Literal["auto", "required"]
    tools: list[AllowedFunction] = Field(min_length=1)


class ToolChoice(Body):
    """One tool that must be called, or the tools among which the model may choose."""

    type: Literal["function", "allowed_tools"]
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None

    @model_validator(mode="after")
    def _complete(self) -> ToolChoice:
        if getattr(self, self.type) is None:
            raise ValueError(f"the type {self.type} needs the field {self.type}")
        return self


def text_or_object(value: Any) -> str:
    """Tells the two forms of a tool_choice apart, so that an error is about the one that was sent."""
    return "text" if isinstance(value, str) else "object"


Mode = Annotated[Literal["none", "auto", "required"], Tag("text")]
ToolChoiceField = Annotated[
    Mode | Annotated[ToolChoice, Tag("object")], Discriminator(text_or_object)
]


class ChatRequest(OpenAIBody):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: ToolChoiceField | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    separate_reasoning: bool | None = None
    stream_reasoning: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None
    audio: Unsupported = None
    functions: Annotated[Any, refused(LEGACY)] = None
    function_call: Annotated[Any, refused(LEGACY)] = None
    prediction: Unsupported = None
    web_search_options: Unsupported = None

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequestError(
                "top_logprobs is allowed only with logprobs: true", param="top_logprobs"
            )
        return self

    def calling(self) -> tuple[list[Tool], Choice | None]:
        """The tools, and the choice among them. Raises InvalidRequestError."""
        tools = [tool.function.tool() for tool in self.tools or ()]
        parallel = self.parallel_tool_calls is not False
        choice = self.tool_choice
        if isinstance(choice, ToolChoice):
            if choice.function is not None:
                return chosen(tools, "named", [choice.function.name], parallel)
            assert choice.allowed_tools is not None
            names = [tool.function.name for tool in choice.allowed_tools.tools]
            return chosen(tools, choice.allowed_tools.mode, names, parallel)
        return chosen(tools, choice or "auto", None, parallel)


def chosen(
    tools: list[Tool],
    mode: Literal["none", "auto", "required", "named"],
    names: list[str] | None,
    parallel: bool,
) -> tuple[list[Tool], Choice | None]:
    """What every API's tool_choice comes to: the tools there are for the model, and its choice.

    names: the one that must be called, or those that may be; None for all.

    Raises InvalidRequestError for names that are not of `tools`, or are given twice.
    """
    known = Counter(tool.name for tool in tools)
    twice = next((name for name, times in known.items() if times > 1), None)
    if twice is not None:
        raise InvalidRequestError(f"tools has {twice!r} twice", param="tools")
    for name in names or ():
        if name not in known:
            raise InvalidRequestError(
                f"tool_choice names {name!r}, which is none of the tools", param="tool_choice"
            )
    if mode == "none":
        return tools, None
    if mode == "required" and not tools:
        raise InvalidRequestError("tool_choice required needs tools", param="tool_choice")
    if mode == "named":
        assert names
        return tools, Choice("named", names[0], parallel)
    allowed = [tool for tool in tools if names is None or tool.name in names]
    return allowed, Choice(mode, None, parallel)
