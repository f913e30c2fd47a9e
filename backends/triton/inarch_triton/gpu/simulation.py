"""A GPU played by Triton's interpreter on the CPU: kernels' numbers without the hardware, very slowly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import triton

from inarch.errors import BackendError
from inarch.hal.device import DeviceInfo
from inarch.hal.kv import KVSpec, KVStore
from inarch.hal.op import Kernel
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.support import Support
from inarch_triton.gpu.device import PAGES
from inarch_triton.kv import paged_store


class SimulatedGpu(ReferenceDevice):
    """Has the kernels of `arch`, and their tiles; memory and copies are the host's.

    Computes in what the interpreter multiplies rightly: not in bfloat16, and over no 8-bit floats.
    """

    def __init__(self, arch: str, kernels: Callable[[str], Sequence[Kernel]]) -> None:
        if not triton.knobs.runtime.interpret:
            raise BackendError("TRITON_INTERPRET=1 must be set before Triton is imported")
        super().__init__()
        name = f"{arch}, in Triton's interpreter"
        self.info = DeviceInfo(name, arch, self.info.memory_bytes, libraries=self.info.libraries)
        self._kernels = kernels(arch)

    def dtypes(self, checkpoint: torch.dtype) -> Sequence[tuple[torch.dtype, str]]:
        return [(torch.float32, "exact"), (torch.float16, "as matrix units compute")]

    def page_tokens(self) -> Sequence[tuple[int, str]]:
        return PAGES

    def kv_dtypes(self, compute: torch.dtype) -> Sequence[tuple[torch.dtype, Support]]:
        return super().kv_dtypes(compute)[:1]

    def kernels(self) -> Sequence[Kernel]:
        return self._kernels

    def kv_store(self, spec: KVSpec, page_tokens: int) -> KVStore:
        return paged_store(self.info.arch, spec, page_tokens, self.torch_device)
