"""The CPU as a device: the host's memory, our threads, and the kernels compiled for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from inarch.hal.collectives import Communicator
from inarch.hal.kv import KVSpec, KVStore
from inarch.hal.op import Kernel
from inarch.hal.reference.device import ReferenceDevice
from inarch_intel_cpu.communicator import SharedMemoryCommunicator
from inarch_intel_cpu.dtypes import preferred
from inarch_intel_cpu.kernels import kernels
from inarch_intel_cpu.kv import CpuKVStore
from inarch_intel_cpu.native import native
from inarch_intel_cpu.placement import Socket, settle

PAGE_TOKENS = 32
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


class IntelCpuDevice(ReferenceDevice):
    """One socket, with as many threads as torch has (OMP_NUM_THREADS) but no more than cores.

    socket: None where the machine has one only, or does not say.
    """

    def __init__(self, socket: Socket | None = None) -> None:
        super().__init__()
        if socket is not None:
            settle(socket)
            torch.set_num_threads(min(torch.get_num_threads(), socket.cores))
        self.native = native()
        self.native.set_threads(torch.get_num_threads())
        self.info = replace(self.info, arch=f"x86_64+{self.native.variant}")

    def _preferred(self, checkpoint: torch.dtype) -> tuple[torch.dtype, str]:
        return preferred(checkpoint, self.native.variant)

    def page_tokens(self) -> Sequence[tuple[int, str]]:
        first = (PAGE_TOKENS, "two registers of a page's row; larger ones gain a few percent")
        return [first, (16, "finest sharing"), (64, "fewer pages"), (128, "fewer pages")]

    def kv_store(self, spec: KVSpec, page_tokens: int) -> KVStore:
        return CpuKVStore(spec, page_tokens, self.native)

    def communicator(self, rank: int, size: int, address: str) -> Communicator | None:
        """Through shared memory between processes of this machine; sockets serve between several."""
        if address.rpartition(":")[0] not in LOOPBACK:
            return None
        return SharedMemoryCommunicator(rank, size, address, self.native)

    def kernels(self) -> Sequence[Kernel]:
        return kernels(self.native)
