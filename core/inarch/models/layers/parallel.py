"""Runs several mixers on one input and adds what they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.hal.kv import KVState
from inarch.models.description import Branch


@dataclass(frozen=True, eq=False)
class ParallelMixer:
    """x [T, hidden] -> [T, hidden]"""

    branches: tuple[Branch, ...]
    mixers: tuple[Callable[[Tensor, StepInputs, KVState], tuple[Tensor, KVState]], ...]

    def __call__(self, x: Tensor, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        total: Tensor | None = None
        for branch, mixer in zip(self.branches, self.mixers, strict=True):
            y, kv = mixer(scaled(x, branch.in_scale), inputs, kv)
            y = scaled(y, branch.out_scale)
            total = y if total is None else total + y
        assert total is not None
        return total, kv


def scaled(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1.0 else x * scale
