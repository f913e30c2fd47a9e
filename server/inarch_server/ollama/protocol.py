"""The requests of /api/chat and /api/generate: Ollama's names for messages, options and formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar
from inarch_server.answering.response_format import json_grammar
from inarch_server.answering.sampling_body import SamplingBody, refused
from inarch_server.answering.template import NO_EFFORT, ON
from inarch_server.answering.terms import TermsBody
from inarch_server.http.body import Body, shown
from inarch_server.openai.chat_protocol import FunctionTool, text_or_object

NO_IMAGES = refused("the model reads text alone")


def _only(*off: Any, cure: str) -> BeforeValidator:
    """For an option that is not supported, but may be sent with a value that means "off"."""

    def check(value: Any) -> None:
        if value is not None and value not in off:
            raise ValueError(f"is not supported by this server; {cure}")

    return BeforeValidator(check, json_schema_input_type=Any)


def _instead(value: int, meaning: int | None) -> Callable[[int | None], int | None]:
    return lambda given: meaning if given == value else given


def _no_limit(value: int | None) -> int | None:
    return None if value is not None and value < 0 else value


class Options(SamplingBody):
    """Those of loading (num_gpu, num_thread, use_mmap ...) mean nothing here, and are ignored."""

    max_tokens: Annotated[int | None, AfterValidator(_no_limit)] = Field(
        default=None, alias="num_predict"
    )
    repetition_penalty: float | None = Field(default=None, alias="repeat_penalty")
    top_k: Annotated[int | None, AfterValidator(_instead(0, -1))] = None  # 0: all
    seed: Annotated[int | None, AfterValidator(_instead(-1, None))] = None  # -1: any
    n: Literal[1] | None = None
    num_ctx: int | None = None  # no more than the model is served with

    repeat_last_n: Annotated[Any, _only(-1, cure="penalties look at all tokens (-1)")] = None
    mirostat: Annotated[Any, _only(0, cure="use temperature, top_p, top_k or min_p")] = None
    tfs_z: Annotated[Any, _only(0, 1, cure="use top_p or min_p")] = None
    typical_p: Annotated[Any, _only(0, 1, cure="use top_p or min_p")] = None
    penalize_newline: Annotated[Any, _only(True, cure="leave it out")] = None


class CalledFunction(Body):
    name: str = Field(min_length=1)
    arguments: dict[str, Any] = Field(default={})


class ToolCall(Body):
    id: str | None = None
    function: CalledFunction


class OllamaMessage(Body):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    images: Annotated[Any, NO_IMAGES] = None

    @model_validator(mode="after")
    def _calls_are_the_assistants(self) -> OllamaMessage:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a {self.role} message cannot have tool_calls")
        return self


def to_messages(given: Sequence[OllamaMessage]) -> list[dict[str, Any]]:
    """As chat templates know them. Calls get ids, which results find by the order of the calls."""
    messages: list[dict[str, Any]] = []
    open_calls: list[tuple[str, str]] = []  # id and name of those without a result
    for message in given:
        shaped: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        if message.thinking:
            shaped["reasoning_content"] = message.thinking
        if message.tool_calls:
            calls = [_call(call, f"call_{len(messages)}_{i}") for i, call in _numbered(message)]
            shaped["tool_calls"] = calls
            open_calls = [(call["id"], call["function"]["name"]) for call in calls]
        if message.role == "tool":
            shaped |= _answered(message, open_calls)
        messages.append(shaped)
    return messages


def _numbered(message: OllamaMessage) -> list[tuple[int, ToolCall]]:
    return list(enumerate(message.tool_calls or ()))


def _call(call: ToolCall, name: str) -> dict[str, Any]:
    arguments = json.dumps(call.function.arguments, ensure_ascii=False)
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id or name, "type": "function", "function": function}


def _answered(result: OllamaMessage, open_calls: list[tuple[str, str]]) -> dict[str, str]:
    """Id and name of the call that a result belongs to; the call is taken away."""
    for i, (id_, name) in enumerate(open_calls):
        if result.tool_call_id in (None, id_) and result.tool_name in (None, name):
            del open_calls[i]
            return {"tool_call_id": id_, "name": name}
    told = {"tool_call_id": result.tool_call_id, "name": result.tool_name}
    return {field: value for field, value in told.items() if value is not None}


Format = Annotated[
    Annotated[Literal["", "json"], Tag("text")] | Annotated[dict[str, Any], Tag("object")],
    Discriminator(text_or_object),
]


def _think(value: Any) -> Any:
    """How much to reason: yes and no, or a measure."""
    if value is None or value in ("low", "medium", "high", "max"):
        return value
    if not isinstance(value, bool):
        raise ValueError(f"must be true, false, low, medium, high or max, not {shown(value)}")
    return ON if value else NO_EFFORT


class OllamaRequest(TermsBody):
    """What both routes take."""

    model: str
    stream: bool | None = None  # unless false
    format: Format | None = None
    options: Options = Options()
    think: Annotated[
        str | None, BeforeValidator(_think, json_schema_input_type=bool | str | None)
    ] = None
    keep_alive: Any = None  # the model stays
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_options(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("options", ...) is None:
            return {name: field for name, field in value.items() if name != "options"}
        return value

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> OllamaRequest:
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequestError(
                "top_logprobs is allowed only with logprobs: true", param="top_logprobs"
            )
        return self

    @property
    def streams(self) -> bool:
        return self.stream is not False

    def grammar(self) -> Grammar | None:
        if not self.format and not isinstance(self.format, dict):
            return None
        return json_grammar(self.format if isinstance(self.format, dict) else None)


class OllamaChatRequest(OllamaRequest):
    messages: list[OllamaMessage] = Field(default=[])  # none: the model is loaded, which it is
    tools: list[FunctionTool] | None = None


class OllamaGenerateRequest(OllamaRequest):
    prompt: str = ""  # empty: as no messages
    system: str | None = None
    raw: bool | None = None  # the prompt is what the model reads, without a chat template
    images: Annotated[Any, NO_IMAGES] = None
    suffix: Annotated[Any, refused("this model does not fill in: send a prompt")] = None
    template: Annotated[Any, refused("write the prompt yourself and send raw: true")] = None
    context: Annotated[Any, refused("send messages to /api/chat to go on")] = None

    @model_validator(mode="after")
    def _raw_is_all_there_is(self) -> OllamaGenerateRequest:
        if self.raw and (self.system or self.think):
            field = "system" if self.system else "think"
            raise InvalidRequestError(
                f"{field} reaches the model through its chat template, which raw: true leaves out:"
                " send one of them",
                param=field,
            )
        return self
