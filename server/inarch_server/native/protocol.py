"""SGLang's native request: /generate with its names for things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator, model_validator

from inarch.errors import InvalidRequestError
from inarch_server.answering.sampling_body import SamplingBody, Unsupported
from inarch_server.answering.terms import TermsBody
from inarch_server.http.body import Body

NO_PROMPT = -1  # logprob_start_len: log-probabilities of the answer only


class NativeSampling(SamplingBody):
    max_tokens: int | None = Field(default=None, alias="max_new_tokens")
    min_tokens: int | None = Field(default=None, alias="min_new_tokens")
    seed: int | None = Field(default=None, alias="sampling_seed")

    beam_width: Unsupported = None
    custom_params: Unsupported = None
    watermark: Unsupported = None


class SessionParams(Body):
    """Where in a session the prompt belongs: behind an earlier request, or at its beginning."""

    id: str
    rid: str | None = None  # of the earlier request
    offset: int | None = None  # tokens of it to keep, if not all; below 0: to cut off its end
    replace: bool | None = None  # forget what came after it; without rid: everything
    drop_previous_output: bool | None = None  # keep its prompt, but not its answer


@dataclass(frozen=True)
class Asked:
    """Log-probabilities that one prompt asks for."""

    top: int
    start: int  # the first token of the prompt, or NO_PROMPT
    token_ids: tuple[int, ...]

    @property
    def of_prompt(self) -> bool:
        return self.start != NO_PROMPT


class OpenSession(Body):
    capacity_of_str_len: int | None = Field(default=None, ge=1)  # counted in tokens
    session_id: str | None = Field(default=None, min_length=1, max_length=128)
    streaming: bool | None = None  # every request goes on from the last one
    timeout: float | None = Field(default=None, gt=0)


class CloseSession(Body):
    session_id: str


class GenerateRequest(TermsBody):
    """Exactly one of text and input_ids; each of them one prompt, or a list of prompts.

    What is said of log-probabilities may be one for all prompts, or a list with one for each.
    """

    text: Any = None  # split by prompts.split
    input_ids: Any = None
    sampling_params: Any = None  # a NativeSampling, or a list with one for each prompt
    rid: Any = None  # a name, or a list with one for each prompt
    stream: bool | None = None
    return_logprob: bool | list[bool] | None = None
    top_logprobs_num: int | list[int] | None = None
    token_ids_logprob: list[int] | list[list[int] | None] | None = None
    logprob_start_len: int | list[int] | None = None
    return_text_in_logprobs: bool | None = None
    session_params: SessionParams | None = None

    input_embeds: Unsupported = None
    image_data: Unsupported = None
    video_data: Unsupported = None
    audio_data: Unsupported = None
    lora_path: Unsupported = None
    return_hidden_states: Unsupported = None
    return_routed_experts: Unsupported = None
    custom_logit_processor: Unsupported = None
    max_thinking_tokens: Unsupported = None

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
        if value is not None and not all(isinstance(name, str) and name for name in names):
            raise ValueError("must be a text, or a list with a text for each prompt")
        return value

    @model_validator(mode="after")
    def _one_prompt(self) -> GenerateRequest:
        if (self.text is None) == (self.input_ids is None):
            raise InvalidRequestError("exactly one of text and input_ids is needed", param="text")
        return self

    @model_validator(mode="after")
    def _a_session_takes_one_prompt(self) -> GenerateRequest:
        if self.session_params is not None and self.is_batch:
            raise InvalidRequestError(
                "a session goes on with one prompt at a time, not with a list", param="text"
            )
        return self

    @property
    def is_batch(self) -> bool:
        """Whether the prompt came as a list of prompts; the answer is then a list too."""
        return isinstance(self.text if self.text is not None else _first(self.input_ids), list)

    def logprobs(self, prompts: int) -> list[Asked | None]:
        """For each prompt which log-probabilities are asked for. Raises InvalidRequestError."""
        wanted = _each(self.return_logprob, prompts, "return_logprob")
        tops = _each(self.top_logprobs_num, prompts, "top_logprobs_num")
        starts = _each(self.logprob_start_len, prompts, "logprob_start_len")
        if low := [start for start in starts if start is not None and start < NO_PROMPT]:
            raise InvalidRequestError(
                f"logprob_start_len must be -1 (none of the prompt) or a place in it, got {low[0]}",
                param="logprob_start_len",
            )
        ids = self.token_ids_logprob
        nested = isinstance(ids, list) and any(not isinstance(item, int) for item in ids)
        named = _each(ids if nested else [ids] * prompts, prompts, "token_ids_logprob")
        return [
            Asked(top or 0, NO_PROMPT if start is None else start, tuple(tokens or ()))
            if want
            else None
            for want, top, start, tokens in zip(wanted, tops, starts, named, strict=True)
        ]


def _each(value: Any, prompts: int, param: str) -> list[Any]:
    if not isinstance(value, list):
        return [value] * prompts
    check_count(param, value, prompts)
    return value


def check_count(param: str, given: Sequence[Any], prompts: int) -> None:
    if len(given) != prompts:
        raise InvalidRequestError(
            f"{param} is a list of {len(given)}, but there are {prompts} prompts", param=param
        )


def _first(value: Any) -> Any:
    """The first of a list, which tells what kind of prompts it holds; all of them may be many."""
    return next(iter(value), None) if isinstance(value, list) else value
