"""The request of /v1/completions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter, WithJsonSchema, model_validator

from inarch.errors import InvalidRequestError
from inarch.sampling import MAX_N
from inarch_server.answering.response_format import ResponseFormat
from inarch_server.answering.sampling_body import refused
from inarch_server.openai.protocol import OpenAIBody

Prompts = Annotated[
    Any, WithJsonSchema(TypeAdapter(str | list[int] | list[str] | list[list[int]]).json_schema())
]


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
