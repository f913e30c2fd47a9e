"""An opened Ascend NPU: its memory, copies that never make the host wait, what can run on it.

Everything runs on the current stream of one device, so work is done in the order in which it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from inarch.errors import BackendError
from inarch.hal.device import Device, DeviceInfo, MemoryStats
from inarch.hal.graphs import GraphExecutor
from inarch.hal.kv import KVSpec, KVStore
from inarch.hal.op import Kernel
from inarch.hal.pinned import PinnedTransfer, upload
from inarch_ascend.buckets import DECODES, GRAPH_SHAPES
from inarch_ascend.communicator import HcclCommunicator
from inarch_ascend.kernels import kernels
from inarch_ascend.kv import BLOCK, BlockKVStore
from inarch_ascend.recorder import NPURecorder


class AscendDevice(Device):
    """NPU number `index` of those that this process was given. Raises BackendError.

    torch_npu: the imported package, which has brought `torch.npu` and the operators.
    """

    running_requests = DECODES[-1]  # as many as are decoded by one graph

    def __init__(self, index: int, torch_npu: ModuleType) -> None:
        count = torch.npu.device_count()
        if not 0 <= index < count:
            raise BackendError(
                f"--device {index}: this process has {count} NPUs, numbers 0..{count - 1}"
            )
        torch.npu.set_device(index)
        self._torch_npu = torch_npu
        self.torch_device = torch.device("npu", index)
        name = torch.npu.get_device_name(index)
        self.info = DeviceInfo(
            name=f"Ascend {name.removeprefix('Ascend')}",
            arch=name,
            memory_bytes=torch.npu.mem_get_info(index)[1],
            libraries={"torch": torch.__version__, "torch-npu": torch_npu.__version__},
        )
        self._before = self._outside()

    # ---- memory ----

    def memory(self) -> MemoryStats:
        """Measure. Blocks that torch's allocator keeps for later are given back first.

        `used` counts what this process took since the device was opened. What it took before (the
        context), and what other processes hold, shows in `free` alone.
        """
        torch.npu.empty_cache()
        free, total = torch.npu.mem_get_info(self.torch_device.index)
        libraries = max(self._outside() - self._before, 0)
        peak = torch.npu.max_memory_reserved() + libraries
        return MemoryStats(total, free, peak, torch.npu.memory_reserved() + libraries)

    def reset_peak_memory(self) -> None:
        torch.npu.empty_cache()
        torch.npu.reset_peak_memory_stats()

    def _outside(self) -> int:
        """Bytes in use that torch's allocator did not take: contexts, libraries, other processes."""
        free, total = torch.npu.mem_get_info(self.torch_device.index)
        return int(total - free - torch.npu.memory_reserved())

    # ---- copies ----

    def upload(self, host: np.ndarray) -> Tensor:
        return upload(host, self.torch_device)

    def download(self, tensor: Tensor) -> PinnedTransfer:
        return PinnedTransfer(tensor, torch.npu.Event())

    def synchronize(self) -> None:
        torch.npu.synchronize()

    def close(self) -> None:
        """Wait for the work and give back what nothing refers to any more."""
        self.synchronize()
        torch.npu.empty_cache()

    # ---- what runs on it ----

    def dtypes(self, checkpoint: torch.dtype) -> Sequence[tuple[torch.dtype, str]]:
        return [
            (torch.bfloat16, "what the fused attention takes, with the range of float32"),
            (torch.float16, "attention then runs in plain torch operations, which is slow"),
            (torch.float32, "exact; attention in plain torch operations, twice the memory"),
        ]

    def page_tokens(self) -> Sequence[tuple[int, str]]:
        return [(BLOCK, "the block size of the fused attention")]

    def kernels(self) -> Sequence[Kernel]:
        return kernels()

    def kv_store(self, spec: KVSpec, page_tokens: int) -> KVStore:
        return BlockKVStore(spec, page_tokens, self.torch_device)

    def executor(self) -> GraphExecutor:
        return GraphExecutor(self.torch_device, NPURecorder(), GRAPH_SHAPES)

    def communicator(self, rank: int, size: int, address: str) -> HcclCommunicator:
        return HcclCommunicator(rank, size, address, self._torch_npu)
