"""The opened fake accelerator: results come late, and everything is the backend's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inarch.hal.device import Device, DeviceInfo, MemoryStats
from inarch.hal.kv import KVSpec
from inarch.hal.op import Facts, Kernel
from inarch.hal.support import Support, no, yes
from inarch_fake.executor import FakeExecutor
from inarch_fake.kv import PAGE_TOKENS, FakeKVStore
from inarch_fake.memory import DEVICE, DeviceTensor, FakeDeviceError, Usage

LATENCY = 3  # ticks of the clock until a download has arrived


class Clock:
    """Time passes when work is given and when someone asks whether it is done."""

    def __init__(self) -> None:
        self.now = 0


@dataclass
class FakeTransfer:
    """Arrives in the order of the work, some ticks after it was begun, or when waited for."""

    array: np.ndarray
    due: int
    clock: Clock

    def ready(self) -> bool:
        self.clock.now += 1
        return self.clock.now > self.due

    def wait(self) -> np.ndarray:
        self.clock.now = max(self.clock.now, self.due)
        return self.array


class FakeDevice(Device):
    """Work is computed when it is given; what the host may see of it lags behind."""

    def __init__(self, memory_bytes: int = 1 << 30) -> None:
        Usage.limit = memory_bytes
        self.info = DeviceInfo("Fake 1", "fake_1", memory_bytes, libraries={"fakelib": "1.0"})
        self.torch_device = DEVICE
        self.clock = Clock()

    def memory(self) -> MemoryStats:
        return MemoryStats(Usage.limit, Usage.limit - Usage.used, Usage.peak, Usage.used)

    def reset_peak_memory(self) -> None:
        Usage.peak = Usage.used

    def upload(self, host: np.ndarray) -> Tensor:
        self.clock.now += 1
        return torch.from_numpy(host.copy()).to(DEVICE)

    def download(self, tensor: Tensor) -> FakeTransfer:
        if not isinstance(tensor, DeviceTensor):
            raise FakeDeviceError("a host tensor was downloaded")
        self.clock.now += 1
        return FakeTransfer(tensor.raw.clone().numpy(), self.clock.now + LATENCY, self.clock)

    def synchronize(self) -> None:
        self.clock.now += LATENCY

    def page_tokens(self) -> Sequence[tuple[int, str]]:
        return [(PAGE_TOKENS, "the only size its attention tiles")]

    def kernels(self) -> Sequence[Kernel]:
        implementation = "inarch_fake.attention:FakeAttention"
        grouped = "inarch_fake.grouped_linear:FakeGroupedLinear"
        return [
            Kernel("attention", "fake", implementation, _supports_attention),
            Kernel("grouped_linear", "fake", grouped),
        ]

    def kv_store(self, spec: KVSpec, page_tokens: int) -> FakeKVStore:
        return FakeKVStore(spec, page_tokens)

    def executor(self) -> FakeExecutor:
        return FakeExecutor()


def _supports_attention(facts: Facts) -> Support:
    reasons = []
    if facts["softcap"] is not None:
        reasons.append("no soft-cap")
    if facts["sinks"]:
        reasons.append("no sinks")
    if not facts["causal"]:
        reasons.append("no attention to both sides")
    return no(*reasons) if reasons else yes()
