"""SGLang's native request: /generate with its names for things."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from inarch.errors import InvalidRequestError
from inarch_server.body import Body
from inarch_server.protocol import SamplingBody, Unsupported


class NativeSampling(SamplingBody):
    max_tokens: int | None = Field(default=None, alias="max_new_tokens")
    min_tokens: int | None = Field(default=None, alias="min_new_tokens")
    seed: int | None = Field(default=None, alias="sampling_seed")

    stop_regex: Unsupported = None
    beam_width: Unsupported = None
    custom_params: Unsupported = None


def _no_prompt_logprobs(value: Any) -> Any:
    if value not in (None, -1):
        raise ValueError("log-probabilities of a prompt are not supported; only -1 (none) is")
    return None


class GenerateRequest(Body):
    """Exactly one of text and input_ids; each of them one prompt, or a list of prompts."""

    text: Any = None  # split by prompts.split
    input_ids: Any = None
    sampling_params: Any = None  # a NativeSampling, or a list with one for each prompt
    rid: Any = None  # a name, or a list with one for each prompt
    stream: bool | None = None
    return_logprob: bool | None = None
    top_logprobs_num: int | None = None
    return_text_in_logprobs: bool | None = None
    logprob_start_len: Annotated[Any, BeforeValidator(_no_prompt_logprobs)] = None

    input_embeds: Unsupported = None
    image_data: Unsupported = None
    video_data: Unsupported = None
    audio_data: Unsupported = None
    lora_path: Unsupported = None
    token_ids_logprob: Unsupported = None
    return_hidden_states: Unsupported = None
    session_params: Unsupported = None
    custom_logit_processor: Unsupported = None

    @field_validator("text")
    @classmethod
    def _texts_only(cls, value: Any) -> Any:
        if not isinstance(_first(value), str | None):
            raise ValueError("must be a text or a list of texts")
        return value

    @field_validator("input_ids")
    @classmethod
    def _ids_only(cls, value: Any) -> Any:
        if isinstance(_first(value), str):
            raise ValueError("must be a list of token ids, or a list of such lists")
        return value

    @field_validator("rid")
    @classmethod
    def _names_only(cls, value: Any) -> Any:
        names = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(name, str) for name in names):
            raise ValueError("must be a text, or a list with a text for each prompt")
        return value

    @model_validator(mode="after")
    def _one_prompt(self) -> GenerateRequest:
        if (self.text is None) == (self.input_ids is None):
            raise InvalidRequestError("exactly one of text and input_ids is needed", param="text")
        return self

    @property
    def is_batch(self) -> bool:
        """Whether the prompt came as a list of prompts; the answer is then a list too."""
        return isinstance(self.text if self.text is not None else _first(self.input_ids), list)


def _first(value: Any) -> Any:
    """The first of a list, which tells what kind of prompts it holds; all of them may be many."""
    return next(iter(value), None) if isinstance(value, list) else value
