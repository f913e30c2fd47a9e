"""Runs every step as it comes: no padding, no capture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from inarch.hal.device import Device
from inarch.hal.executor import Kept, Step, StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch.hal.packing import upload


class EagerExecutor:
    """What serves a device that gives no executor of its own."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def bucket(self, shape: StepShape) -> StepShape:
        return shape

    def upload(
        self,
        shape: StepShape,
        arrays: Mapping[str, np.ndarray],
        passing: Mapping[str, np.ndarray],
    ) -> dict[str, Tensor]:
        return upload(self._device, {**arrays, **passing})

    def run(
        self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState
    ) -> tuple[Tensor, KVState]:
        return step(inputs, kv)

    def unprepared(self, most: StepShape) -> StepShape | None:
        return None

    def kept(self, most: StepShape) -> Kept | None:
        return None
