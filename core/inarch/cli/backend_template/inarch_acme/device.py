"""The opened device: its memory, copies to and from it, and the kernels that run on it.

This one is torch's CPU. For hardware that torch knows, say which torch.device it is and how copies are
made; every op then runs there, by Inarch's reference, before there is a single kernel.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inarch.hal.device import Device, DeviceInfo, MemoryStats, ReadyTransfer, Transfer
from inarch.hal.op import Kernel
from inarch.hal.reference import host
from inarch_acme.kernels import supports_rms_norm


class AcmeDevice(Device):
    """Work that is given to it must run in the order in which it was given."""

    memory_share = 0.5  # an engine takes so much of the memory, unless told: this one is shared
    step_tokens = 512  # of a step at most: about what keeps the device busy

    def __init__(self) -> None:
        self.info = DeviceInfo(
            name=f"Acme on {host.cpu_name()}",
            arch=platform.machine(),  # "sm_90a", "gfx942": what kernels are made for
            memory_bytes=host.host_memory().total,
            libraries={"torch": torch.__version__},
        )
        self.torch_device = torch.device("cpu")

    def memory(self) -> MemoryStats:
        """Measured now: the size of the KV cache follows from it."""
        memory = host.host_memory()
        return MemoryStats(memory.total, memory.free, host.process_peak(), host.process_memory())

    def reset_peak_memory(self) -> None:
        host.reset_process_peak()

    def upload(self, host: np.ndarray) -> Tensor:
        """Copied before it returns: the core goes on to write to `host`."""
        return torch.from_numpy(host.copy())

    def download(self, tensor: Tensor) -> Transfer:
        """An accelerator only begins to copy here, and gives a Transfer that is ready later."""
        return ReadyTransfer(tensor.detach().clone().numpy())

    def synchronize(self) -> None:
        """Nothing is ever under way on a CPU."""

    def dtypes(self, checkpoint: torch.dtype) -> Sequence[tuple[torch.dtype, str]]:
        """What it can compute in, the best first, each with the reason: --dtype chooses among them."""
        own = (checkpoint, "the checkpoint's own")
        return [own] if checkpoint == torch.float32 else [own, (torch.float32, "exact")]

    def kernels(self) -> Sequence[Kernel]:
        """What is not listed here, or says no, runs on the reference."""
        return [Kernel("rms_norm", "acme", "inarch_acme.kernels:rms_norm", supports_rms_norm)]
