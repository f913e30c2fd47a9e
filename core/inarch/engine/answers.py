"""Whole answers of an engine, and what may be given to it for many of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from inarch.engine.messages import ModelInfo
from inarch.engine.outputs import RequestOutput, TokenLogprob
from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams

Prompt = str | Sequence[int]
Conversation = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Answer:
    """A finished sample."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    logprobs: tuple[TokenLogprob, ...]
    index: int  # which prompt of the call it answers
    sample: int  # which of its n samples
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    cumulative_logprob: float | None = None  # of its tokens, if logprobs were asked for
    vectors: np.ndarray | None = None  # of a prompt to encode


class Parts:
    """Outputs of many prompts as they come, until they are answers."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], list[RequestOutput]] = {}

    def add(self, number: int, output: RequestOutput) -> None:
        self._parts.setdefault((number, output.index), []).append(output)

    def answers(self) -> list[Answer]:
        """In the order of the prompts, the samples of each in theirs."""
        return [_join(number, outputs) for (number, _), outputs in sorted(self._parts.items())]


def as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt is a text, or a sequence of token ids (numpy's too)."""
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Iterable):
        raise InvalidRequestError(
            f"a prompt is a text or a sequence of token ids, got {type(prompts).__name__}",
            param="prompt",
        )
    listed: list[Any] = list(prompts)
    if listed and all(isinstance(item, Integral) for item in listed):
        return [[int(item) for item in listed]]
    return listed


def conversations(messages: Conversation | Sequence[Conversation]) -> list[Conversation]:
    """One conversation is a sequence of messages."""
    many: Sequence[Any] = messages
    return [many] if many and isinstance(many[0], Mapping) else list(many)


def per_prompt(
    params: SamplingParams | Sequence[SamplingParams] | None, count: int, info: ModelInfo
) -> list[SamplingParams]:
    """One for each prompt; what the model's makers recommend if none are given."""
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams(**info.default_sampling)] * count
    if len(params) != count:
        raise ValueError(f"{count} prompts, but {len(params)} sampling parameters")
    return list(params)


def _join(number: int, outputs: Sequence[RequestOutput]) -> Answer:
    last = outputs[-1]
    return Answer(
        text="".join(output.text for output in outputs),
        token_ids=tuple(token for output in outputs for token in output.token_ids),
        finish_reason=str(last.finish_reason),
        prompt_tokens=last.prompt_tokens,
        cached_tokens=last.cached_tokens,
        logprobs=tuple(item for output in outputs for item in output.logprobs),
        index=number,
        sample=last.index,
        prompt_logprobs=outputs[0].prompt_logprobs,
        cumulative_logprob=last.cumulative_logprob,
        vectors=last.vectors,
    )
