"""What one step computes, as a value: made by the scheduler, run by the runner, then committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inarch.engine.request import Request
from inarch.engine.states import StateRuns
from inarch.hal.attention import SharedPrefixes


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Of each sequence s, tokens [starts[s], starts[s] + lengths[s]).

    The first `decodes` sequences have one token each, the one sampled last, whose id may be known to
    the device only. The others are prefill chunks of known tokens.
    """

    requests: list[Request]
    rows: np.ndarray  # int32 [S]
    starts: np.ndarray  # int32 [S]
    lengths: np.ndarray  # int32 [S]
    samples: np.ndarray  # bool [S]: ends at the last token, so the step yields the next one
    decodes: int
    shared: SharedPrefixes | None = None  # among the decodes
    scored: Sequence[Scored] = ()
    pooled: Sequence[Pooled] = ()
    states: StateRuns | None = None  # of a model with recurrent states

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())


class Scored(NamedTuple):
    """Positions [start, end) of a request's prompt, whose logits are wanted beside the last one's."""

    request: Request
    sequence: int  # its place in the step
    start: int
    end: int


class Pooled(NamedTuple):
    """Positions [start, end) of a prompt to encode, whose hidden states are pooled; may be none."""

    request: Request
    sequence: int  # its place in the step
    start: int
    end: int
    last: bool  # with them the prompt is complete


class PositionLogprobs(NamedTuple):
    """Log-probabilities at N consecutive positions, float32; ids are int64."""

    chosen: np.ndarray  # [N] of the token that is there
    values: np.ndarray  # [N, top] of the most likely ones
    ids: np.ndarray  # [N, top]
    wanted: np.ndarray  # [N, W] of `logprob_token_ids`


class Produced(NamedTuple):
    """One committed token, and whether it ended its request."""

    request: Request
    token: int
    sequence: int  # its place in the step
    finish: str | None  # "stop", "length", "failed" (its token is void) or None
    first: bool  # of its request
