"""The CPU as a device: the host's memory, our threads, and the kernels compiled for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from inarch.hal.kv import KVSpec, KVStore
from inarch.hal.op import Kernel
from inarch.hal.reference.device import ReferenceDevice
from inarch_intel_cpu.kernels import kernels
from inarch_intel_cpu.kv import CpuKVStore
from inarch_intel_cpu.native import native

PAGE_TOKENS = 64


class IntelCpuDevice(ReferenceDevice):
    """All cores that this process may use. As many threads as torch has (OMP_NUM_THREADS)."""

    def __init__(self) -> None:
        super().__init__()
        self.native = native()
        self.native.set_threads(torch.get_num_threads())
        self.info = replace(self.info, arch=f"x86_64+{self.native.variant}")

    def page_tokens(self) -> Sequence[tuple[int, str]]:
        first = (PAGE_TOKENS, "a page of one head fills whole cache lines, and prefetchers run on")
        return [first, *((size, "finer sharing") for size in (16, 32)), (128, "fewer pages")]

    def kv_store(self, spec: KVSpec, page_tokens: int) -> KVStore:
        return CpuKVStore(spec, page_tokens, self.native)

    def kernels(self) -> Sequence[Kernel]:
        return kernels(self.native)
