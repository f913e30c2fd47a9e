"""Runs every step as it comes: no padding, no capture."""

from __future__ import annotations

from torch import Tensor

from inarch.hal.executor import Step, StepInputs, StepShape
from inarch.hal.kv import KVState


class EagerExecutor:
    """What serves a device that gives no executor of its own."""

    def bucket(self, shape: StepShape) -> StepShape:
        return shape

    def run(
        self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState
    ) -> tuple[Tensor, KVState]:
        return step(inputs, kv)
