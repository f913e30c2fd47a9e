"""The CPU as a device: its memory is the host's, and every copy is finished when it returns."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inarch.hal.device import Device, DeviceInfo, MemoryStats, ReadyTransfer, Transfer
from inarch.hal.reference import host
from inarch.hal.support import Support, yes

# Instruction sets that make a 16-bit matrix product faster than a float32 one.
FAST_16_BIT = {
    torch.bfloat16: frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    torch.float16: frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
}
# Of all that a CPU lists, what decides how fast it multiplies.
TELLING = frozenset({"avx2", "fma", "f16c", "avx512f", "avx512_vnni", "amx_tile", "asimd", "sve"})
TELLING |= frozenset().union(*FAST_16_BIT.values())


class ReferenceDevice(Device):
    """One process's view of all CPU cores. Threads are torch's own choice (OMP_NUM_THREADS)."""

    memory_share = 0.5  # the rest of the machine lives in the same memory
    step_tokens = 512

    def __init__(self) -> None:
        vector = torch.backends.cpu.get_cpu_capability().lower()
        self.info = DeviceInfo(
            name=host.cpu_name(),
            arch=f"{platform.machine()}+{vector}",
            memory_bytes=host.host_memory().total,
            features=host.cpu_features() & TELLING,
            libraries={"torch": torch.__version__},
        )
        self.torch_device = torch.device("cpu")

    def memory(self) -> MemoryStats:
        memory = host.host_memory()
        return MemoryStats(memory.total, memory.free, host.process_peak(), host.process_memory())

    def reset_peak_memory(self) -> None:
        host.reset_process_peak()

    def upload(self, host: np.ndarray) -> Tensor:
        return torch.from_numpy(host.copy())

    def download(self, tensor: Tensor) -> Transfer:
        # A copy: the caller may go on to overwrite the tensor, as on any other device.
        return ReadyTransfer(tensor.detach().clone().numpy())

    def synchronize(self) -> None:
        return None

    def dtypes(self, checkpoint: torch.dtype) -> Sequence[tuple[torch.dtype, str]]:
        allowed = {
            torch.float32: "exact; needs twice the memory of a 16-bit type",
            torch.bfloat16: "half the memory",
            torch.float16: "half the memory",
        }
        first, reason = self._preferred(checkpoint)
        allowed.pop(first, None)
        return [(first, reason), *allowed.items()]

    def kv_dtypes(self, compute: torch.dtype) -> Sequence[tuple[torch.dtype, Support]]:
        narrow = yes("least memory; every read is converted")
        return [*super().kv_dtypes(compute), (torch.float8_e4m3fn, narrow)]

    def _preferred(self, checkpoint: torch.dtype) -> tuple[torch.dtype, str]:
        fast = FAST_16_BIT.get(checkpoint)
        if fast is None or fast & self.info.features:
            return checkpoint, "the checkpoint's own"
        name = str(checkpoint).removeprefix("torch.")
        return torch.float32, f"{name} matrix products are about 5 times slower on this CPU"
