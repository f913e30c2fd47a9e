"""OpenAI's requests: the fields that are understood, and those that are refused instead of ignored.

The names of sampling fields are those of `SamplingParams`; what OpenAI's own API does not have
(top_k, min_p, stop_token_ids ...) is named as in other open servers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from inarch.errors import InvalidRequestError
from inarch_server.body import Body, shown


def _as_tuple(value: Any) -> Any:
    """Stop strings may come as one string; strict mode wants a tuple where JSON has a list."""
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, str | int) else value


def _token_keys(value: Any) -> Any:
    """JSON has no integer keys: {"42": -100} means token 42."""
    if not isinstance(value, dict):
        return value
    for key in value:
        if not key.isascii() or not key.isdigit():
            raise ValueError(f"keys must be token ids, {shown(key)} is none")
    return {int(key): bias for key, bias in value.items()}


def _no_value(value: Any) -> Any:
    if value:  # null, false and empty ask for nothing
        raise ValueError("is not supported by this server; leave it out")
    return None


def _text_format(value: Any) -> Any:
    if value is not None and (not isinstance(value, dict) or value.get("type") != "text"):
        raise ValueError("only the format text is supported by this server")
    return value


def _joined_parts(value: Any) -> Any:
    """Content given as a list of parts becomes one text."""
    if not isinstance(value, list):
        return value
    for i, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else part
            raise ValueError(
                f'part {i} must be of type "text" (all the model reads), not {shown(kind)}'
            )
        if not isinstance(part.get("text"), str):
            raise ValueError(f"part {i} lacks its text")
    return "\n".join(part["text"] for part in value)


Strings = Annotated[tuple[str, ...] | None, BeforeValidator(_as_tuple)]
TokenIds = Annotated[tuple[int, ...] | None, BeforeValidator(_as_tuple)]
LogitBias = Annotated[dict[int, float] | None, BeforeValidator(_token_keys)]
Unsupported = Annotated[Any, BeforeValidator(_no_value)]


class SamplingBody(Body):
    """What both OpenAI endpoints and the native one have in common. None: as the model prefers."""

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: LogitBias = None
    stop: Strings = None
    stop_token_ids: TokenIds = None
    ignore_eos: bool | None = None
    seed: int | None = None
    n: int | None = None
    skip_special_tokens: bool | None = None
    include_stop: bool | None = Field(default=None, alias="no_stop_trim")

    regex: Unsupported = None
    ebnf: Unsupported = None
    json_schema: Unsupported = None
    structural_tag: Unsupported = None


class StreamOptions(Body):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class OpenAIBody(SamplingBody):
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Annotated[Any, BeforeValidator(_text_format)] = None
    lora_path: Unsupported = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> OpenAIBody:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequestError(
                "stream_options is allowed only with stream: true", param="stream_options"
            )
        return self


class Message(Body):
    """One message; further fields (name, tool_calls, tool_call_id ...) reach the chat template."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | None, BeforeValidator(_joined_parts)] = None

    @model_validator(mode="after")
    def _only_an_assistant_may_be_silent(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a {self.role} message needs content")
        return self


class ChatRequest(OpenAIBody):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: Unsupported = None
    functions: Unsupported = None
    modalities: list[Literal["text"]] | None = None
    audio: Unsupported = None

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequestError(
                "top_logprobs is allowed only with logprobs: true", param="top_logprobs"
            )
        return self


class CompletionRequest(OpenAIBody):
    prompt: Any  # split by prompts.split, whose messages say which of four shapes is wrong where
    logprobs: int | None = None
    echo: bool | None = None
    suffix: Unsupported = None
    best_of: int | None = None

    @model_validator(mode="after")
    def _no_contradictions(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise InvalidRequestError(
                f"best_of ({self.best_of}) other than n ({self.n or 1}) is not supported",
                param="best_of",
            )
        if self.echo and self.logprobs is not None:
            raise InvalidRequestError(
                "echo with logprobs is not supported: log-probabilities of the prompt are not kept",
                param="echo",
            )
        return self
