"""What OpenAI's requests share: the fields that are understood, and those that are refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from inarch.errors import InvalidRequestError
from inarch_server.answering.sampling_body import SamplingBody, Unsupported, refused
from inarch_server.answering.terms import TermsBody
from inarch_server.http.body import Body


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
