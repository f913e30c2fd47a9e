"""An opened GPU: its memory, copies that never make the host wait, steps as graphs.

Everything runs on the current stream of one device, so work is done in the order in which it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import triton
from torch import Tensor

from inarch.errors import BackendError
from inarch.hal.device import Device, DeviceInfo, MemoryStats
from inarch.hal.graphs import GraphExecutor
from inarch.hal.kv import KVSpec, KVStore
from inarch.hal.pinned import PinnedTransfer, upload
from inarch_triton.gpu.buckets import DECODES, GRAPH_SHAPES
from inarch_triton.gpu.recorder import GpuRecorder
from inarch_triton.kv import PagedKVStore

PAGES = (
    (64, "a tile of keys is one page, and prefixes are shared in steps of 64"),
    (128, "fewer pages to look up; prefixes are shared in coarser steps"),
    (32, "prefixes are shared in finer steps; twice the look-ups of 64"),
    (16, "prefixes are shared in the finest steps; four times the look-ups of 64"),
)


class GpuDevice(Device):
    """GPU number `index` of those that this process was given, which `check_index` has accepted."""

    running_requests = DECODES[-1]  # as many as are decoded by one graph

    def __init__(self, index: int, arch: str, libraries: Mapping[str, str]) -> None:
        torch.cuda.set_device(index)
        torch.set_float32_matmul_precision("highest")  # some images turn TF32 on: not exact
        properties = torch.cuda.get_device_properties(index)
        self.torch_device = torch.device("cuda", index)
        self.info = DeviceInfo(
            name=properties.name,
            arch=arch,
            memory_bytes=properties.total_memory,
            libraries={"torch": torch.__version__, **libraries, "triton": triton.__version__},
        )
        self._before = self._outside()

    # ---- memory ----

    def memory(self) -> MemoryStats:
        """Measure. Blocks that torch's allocator keeps for later are given back first.

        `used` counts what this process took since the device was opened. What it took before (the
        context), and what other processes hold, shows in `free` alone.
        """
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        libraries = max(self._outside() - self._before, 0)
        peak = torch.cuda.max_memory_reserved() + libraries
        return MemoryStats(total, free, peak, torch.cuda.memory_reserved() + libraries)

    def reset_peak_memory(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def _outside(self) -> int:
        """Bytes in use that torch's allocator did not take: contexts, libraries, other processes."""
        free, total = torch.cuda.mem_get_info(self.torch_device)
        return total - free - torch.cuda.memory_reserved(self.torch_device)

    # ---- copies ----

    def upload(self, host: np.ndarray) -> Tensor:
        return upload(host, self.torch_device)

    def download(self, tensor: Tensor) -> PinnedTransfer:
        return PinnedTransfer(tensor, torch.cuda.Event())

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def close(self) -> None:
        """Wait for the work and give back what nothing refers to any more."""
        self.synchronize()
        torch.cuda.empty_cache()

    # ---- what runs on it ----

    def page_tokens(self) -> Sequence[tuple[int, str]]:
        return PAGES

    def kv_store(self, spec: KVSpec, page_tokens: int) -> KVStore:
        return PagedKVStore(spec, page_tokens, self.torch_device)

    def executor(self) -> GraphExecutor:
        return GraphExecutor(self.torch_device, GpuRecorder(self.torch_device), GRAPH_SHAPES)


def dtypes_of(checkpoint: torch.dtype, units: str, exact: str) -> Sequence[tuple[torch.dtype, str]]:
    """Dtypes to compute in, where 16-bit products run on `units`; exact: what is said of float32."""
    offered = {
        torch.bfloat16: f"{units} at full rate, with the range of float32",
        torch.float16: f"{units} at full rate; overflows above 65504",
        torch.float32: exact,
    }
    if checkpoint in (torch.bfloat16, torch.float16):
        first = (checkpoint, f"the checkpoint's own, on {units}")
    else:
        first = (torch.bfloat16, f"{units}; --dtype float32 computes exactly")
    offered.pop(first[0])
    return [first, *offered.items()]


def check_index(index: int) -> None:
    """Raise BackendError unless torch sees the GPU."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise BackendError(f"torch {torch.__version__} cannot use the GPU: {error}") from error
    count = torch.cuda.device_count()
    if not 0 <= index < count:
        raise BackendError(
            f"--device {index}: this process has {count} GPUs, numbers 0..{count - 1}"
        )
