"""Run the step: eagerly, or as one of a set of captured or compiled shapes.

The core pads a batch to the shape that `bucket` answers, has its arrays uploaded and then calls `run`.
A capturing executor prepares a shape when it first meets it, or before while there is nothing to do,
and keeps the arrays of a shape at fixed addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from inarch.hal.kv import KVState


@dataclass(frozen=True, slots=True)
class StepShape:
    """tokens of the batch, its sequences, and the most query tokens that one sequence has.

    captured: whether steps of the shape are recorded once and then replayed.
    """

    tokens: int
    seqs: int
    max_query: int
    captured: bool = False


@dataclass(frozen=True)
class Kept:
    """Memory that an executor comes to keep: as much as a step of `shape` takes, and `more` bytes."""

    shape: StepShape
    more: int


@dataclass(frozen=True)
class StepInputs:
    """What a forward pass reads, padded to the bucket.

    token_ids [T] int64; below 0 it is ~row, the token sampled last for that row. positions [T]
    int64. last_token [S] int64: the index in the batch of each sequence's last query token, whose
    hidden state becomes logits; in a scored step those of further tokens follow. plans: one
    attention plan per distinct attention spec of the model, and last the StatePlan of one that has
    recurrent states. token_types [T] int64: which text of a pair a token belongs to, for models that
    tell them apart.
    """

    token_ids: Tensor
    positions: Tensor
    last_token: Tensor
    plans: tuple[Any, ...]
    token_types: Tensor | None = None


# -> logits [S, V] float32, or a scored step's hidden states; state
Step = Callable[[StepInputs, KVState], tuple[Tensor, KVState]]


class Executor(Protocol):
    def bucket(self, shape: StepShape) -> StepShape:
        """The shape to pad to; every field at least as large. The same shape: no padding.

        What is added comes as padding sequences: at least one if there are tokens to add.
        """
        ...

    def upload(
        self,
        shape: StepShape,
        arrays: Mapping[str, np.ndarray],
        passing: Mapping[str, np.ndarray],
    ) -> dict[str, Tensor]:
        """Bring the arrays of a step to the device, in one copy; all are valid until the next step.

        `arrays` are of the same shapes in every step of a captured shape and stay where they are;
        `passing`, which no captured work reads, may lie anywhere.
        """
        ...

    def run(
        self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState
    ) -> tuple[Tensor, KVState]:
        """Run `step` on inputs that `upload` brought over for a shape that `bucket` gave.

        A scored step, whose prompts are asked for their log-probabilities, is rare: its shape is its
        own, neither padded nor captured. What is returned is valid until the next run.
        """
        ...

    def unprepared(self, most: StepShape) -> StepShape | None:
        """The most useful shape that a first run would prepare, of those that steps up to `most` have.

        The core runs it on padding while it has nothing else to do. None: nothing is left.
        """
        ...

    def kept(self, most: StepShape) -> Kept | None:
        """What all shapes of steps up to `most` keep once they are prepared; None: nothing."""
        ...
