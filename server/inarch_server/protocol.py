"""OpenAI's requests: the fields that are understood, and those that are refused instead of ignored.

The names of sampling fields are those of `SamplingParams`; what OpenAI's own API does not have
(top_k, min_p, stop_token_ids ...) is named as in other open servers.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, WithJsonSchema, model_validator

from inarch.errors import InvalidRequestError
from inarch.sampling import MAX_N
from inarch_server.body import Body, shown
from inarch_server.response_format import Constraints, ResponseFormat
from inarch_server.terms import TermsBody


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


_Nothing = Annotated[Any, WithJsonSchema({"enum": [None, False, 0, "", [], {}]})]


def refused(cure: str) -> BeforeValidator:
    """For a field that is not supported: null, false and empty ask for nothing."""

    def check(value: Any) -> None:
        if value:
            raise ValueError(f"is not supported by this server; {cure}")

    return BeforeValidator(check, json_schema_input_type=_Nothing)


Strings = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(_as_tuple, json_schema_input_type=str | list[str] | None),
]
TokenIds = Annotated[
    tuple[int, ...] | None,
    BeforeValidator(_as_tuple, json_schema_input_type=int | list[int] | None),
]
LogitBias = Annotated[
    dict[int, float] | None,
    BeforeValidator(_token_keys, json_schema_input_type=dict[str, float] | None),
]
Prompts = Annotated[
    Any, WithJsonSchema(TypeAdapter(str | list[int] | list[str] | list[list[int]]).json_schema())
]
Unsupported = Annotated[Any, refused("leave it out")]


class SamplingBody(Constraints):
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
    stop_regex: Strings = None
    stop_token_ids: TokenIds = None
    ignore_eos: bool | None = None
    seed: int | None = None
    n: int | None = None
    skip_special_tokens: bool | None = None
    include_stop: bool | None = Field(default=None, alias="no_stop_trim")


class StreamOptions(Body):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class OpenAIBody(SamplingBody, TermsBody):
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    rid: str | None = Field(default=None, min_length=1, max_length=128)
    lora_path: Unsupported = None
    guided_json: Annotated[Any, refused("use response_format, or json_schema")] = None
    guided_regex: Annotated[Any, refused("use regex")] = None
    guided_grammar: Annotated[Any, refused("use ebnf")] = None
    guided_choice: Annotated[Any, refused("use regex: (one|two)")] = None
    structured_outputs: Annotated[Any, refused("use response_format, regex or ebnf")] = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> OpenAIBody:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequestError(
                "stream_options is allowed only with stream: true", param="stream_options"
            )
        return self


class CompletionRequest(OpenAIBody):
    prompt: (
        Prompts  # split by prompts.split, whose messages say which of four shapes is wrong where
    )
    logprobs: int | None = None
    echo: bool | None = None
    suffix: Annotated[Any, refused("this model does not fill in: send a prompt")] = None
    best_of: int | None = Field(default=None, ge=1, le=MAX_N)
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _no_contradictions(self) -> CompletionRequest:
        n = self.n or 1
        if self.best_of is not None and self.best_of < n:
            raise InvalidRequestError(
                f"best_of ({self.best_of}) must be at least n ({n})", param="best_of"
            )
        if self.best_of is not None and self.best_of > n and self.stream:
            raise InvalidRequestError(
                "which of best_of answers is best is known when all are there: send no stream: true",
                param="best_of",
            )
        return self
