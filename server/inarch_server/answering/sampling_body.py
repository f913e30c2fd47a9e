"""How a request says what to sample: the fields that all APIs but Anthropic's and Ollama's share.

Their names are those of `SamplingParams`; what OpenAI's own API does not have (top_k, min_p,
stop_token_ids ...) is named as in other open servers.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from inarch_server.answering.response_format import Constraints
from inarch_server.http.body import shown


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
