"""An opened NVIDIA GPU: which are new enough, what they compute in, and their kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inarch.errors import BackendError
from inarch.hal.op import Kernel
from inarch.hal.support import Support
from inarch_nvidia.kernels import kernels
from inarch_triton.gpu.device import GpuDevice, check_index, dtypes_of
from inarch_triton.kernels import keeps_fp8

OLDEST = (8, 0)  # Ampere: the first with bfloat16 and asynchronous copies to shared memory


class NvidiaDevice(GpuDevice):
    """GPU number `index` of those that this process was given. Raises BackendError."""

    def __init__(self, index: int) -> None:
        check_index(index)
        major, minor = _capability(index)
        super().__init__(
            index, f"sm_{major}{minor}", {"CUDA of torch": torch.version.cuda or "none"}
        )

    def dtypes(self, checkpoint: torch.dtype) -> Sequence[tuple[torch.dtype, str]]:
        exact = "exact: TF32 is off; many times slower, twice the memory"
        return dtypes_of(checkpoint, "tensor cores", exact)

    def kv_dtypes(self, compute: torch.dtype) -> Sequence[tuple[torch.dtype, Support]]:
        return [*super().kv_dtypes(compute), (torch.float8_e4m3fn, keeps_fp8(self.info.arch))]

    def kernels(self) -> Sequence[Kernel]:
        return kernels(self.info.arch)


def _capability(index: int) -> tuple[int, int]:
    """The compute capability. Raises BackendError if it is too old."""
    capability = torch.cuda.get_device_capability(index)
    if capability < OLDEST:
        raise BackendError(
            f"{torch.cuda.get_device_name(index)} has compute capability "
            f"{capability[0]}.{capability[1]}; the kernels need {OLDEST[0]}.{OLDEST[1]} (Ampere) or "
            "newer: run on the CPU with --backend reference"
        )
    return capability
