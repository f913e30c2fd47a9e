"""A backend that computes nothing, to measure what the host costs: same core, no arithmetic."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch, AttentionResult, HostPlan
from inarch.hal.backend import Backend, Probe
from inarch.hal.device import Device, DeviceInfo, MemoryStats, ReadyTransfer, Transfer
from inarch.hal.executor import Step, StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch.hal.op import Kernel
from inarch.hal.reference.executor import EagerExecutor

FIRST_TELLING = 300  # beyond the single bytes of a dummy tokenizer


class NullAttention:
    """Plans by taking note of the batch, as cheaply as can be."""

    capturable = True

    def __init__(self, *_: Any) -> None: ...

    def kept_bytes(self, most: StepShape) -> int:
        return 0

    def plan(self, batch: AttentionBatch) -> HostPlan:
        return HostPlan({}, {}, lambda _: batch)

    def run(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, kv: KVState, plan: Any, **_: Any
    ) -> Any:
        return AttentionResult(q, kv, None)


class NullExecutor(EagerExecutor):
    """Answers the same logits to every step of a number of sequences."""

    def __init__(self, device: Device, vocab_size: int) -> None:
        super().__init__(device)
        self._logits = torch.zeros(4096, vocab_size)

    def run(self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState) -> Any:
        return self._logits[: shape.seqs], kv


@dataclass(frozen=True)
class LateTransfer:
    """What a device with a step of some length would give: the same array, but not before then."""

    array: np.ndarray
    ready_s: float  # on time.monotonic

    def ready(self) -> bool:
        return time.monotonic() >= self.ready_s

    def wait(self) -> np.ndarray:
        time.sleep(max(0.0, self.ready_s - time.monotonic()))
        return self.array


class NullDevice(Device):
    torch_device = torch.device("cpu")

    def __init__(self, vocab_size: int, memory_bytes: int, step_s: float, log: str) -> None:
        self.info = DeviceInfo("null", "null", memory_bytes)
        self._vocab_size = vocab_size
        self._tokens = np.full(4096, 7)
        self._step_s, self._busy_until = step_s, 0.0
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if log else None
        self._steps = 0

    def memory(self) -> MemoryStats:
        return MemoryStats(self.info.memory_bytes, self.info.memory_bytes, 0, 0)

    def reset_peak_memory(self) -> None: ...

    def upload(self, host: np.ndarray) -> Tensor:
        return torch.from_numpy(host)

    def download(self, tensor: Tensor) -> Transfer:
        tokens = self._tokens[: len(tensor)]
        if not self._step_s:
            return ReadyTransfer(tokens)
        self._busy_until = max(self._busy_until, time.monotonic()) + self._step_s
        if self._log is not None:
            os.write(self._log, struct.pack("=d", self._busy_until))
            tokens = np.full(len(tensor), FIRST_TELLING + self._steps % (self._vocab_size // 2))
            self._steps += 1
        return LateTransfer(tokens, self._busy_until)

    def synchronize(self) -> None: ...

    def kernels(self) -> Sequence[Kernel]:
        tokens = torch.full((4096,), 7)
        return [
            Kernel("attention", "null", NullAttention),
            Kernel("greedy", "null", lambda logits: tokens[: len(logits)]),
            Kernel("sample", "null", lambda logits, *_: tokens[: len(logits)]),
        ]

    def executor(self) -> NullExecutor:
        return NullExecutor(self, self._vocab_size)


class NullBackend(Backend):
    name = "null"

    def __init__(
        self,
        vocab_size: int,
        memory_bytes: int = 8 << 30,
        *,
        step_s: float = 0.0,
        log: str = "",
    ) -> None:
        """log: a file for the time at which each step ends (float64, on time.monotonic). The number of
        the step is then what its tokens tell: the first step's are FIRST_TELLING."""
        self._arguments = (vocab_size, memory_bytes, step_s, log)

    def probe(self) -> Probe:
        return Probe(score=1, devices=("null",))

    def open(self, index: int) -> NullDevice:
        return NullDevice(*self._arguments)
