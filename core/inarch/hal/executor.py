"""Run the step: eagerly, or as one of a set of captured or compiled shapes.

The core pads a batch to the shape that `bucket` answers and then calls `run`. A capturing executor
prepares a shape when it first meets it, and copies the inputs into buffers of fixed address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from inarch.hal.kv import KVState


@dataclass(frozen=True, slots=True)
class StepShape:
    """tokens of the batch, its sequences, and the most query tokens that one sequence has."""

    tokens: int
    seqs: int
    max_query: int


@dataclass(frozen=True)
class StepInputs:
    """What a forward pass reads, padded to the bucket.

    token_ids [T] int64; below 0 it is ~row, the token sampled last for that row. positions [T]
    int64. last_token [S] int64: the index in the batch of each sequence's last query token, whose
    hidden state becomes logits. plans: one attention plan per distinct attention spec of the model.
    """

    token_ids: Tensor
    positions: Tensor
    last_token: Tensor
    plans: tuple[Any, ...]


Step = Callable[[StepInputs, KVState], tuple[Tensor, KVState]]  # -> logits [S, V] float32, state


class Executor(Protocol):
    def bucket(self, shape: StepShape) -> StepShape:
        """The shape to pad to; every field at least as large. The same shape: no padding.

        What is added comes as padding sequences: no more sequences than tokens, and at least one
        sequence if there are tokens.
        """
        ...

    def run(
        self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState
    ) -> tuple[Tensor, KVState]:
        """Run `step` on inputs of a shape that `bucket` gave. The logits are valid until next run."""
        ...
