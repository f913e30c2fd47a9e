"""The chips of one host as one device, which JAX runs: TPUs, or JAX's CPU where there are none."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np
import torch
from torch import Tensor

from inarch.hal.device import Device, DeviceInfo, MemoryStats, Transfer
from inarch.hal.executor import Step, StepInputs
from inarch.hal.kv import KVSpec, KVState
from inarch.hal.op import Kernel
from inarch.hal.reference.host import cpu_name, host_memory
from inarch_tpu import ragged
from inarch_tpu.executor import XlaExecutor
from inarch_tpu.kernels import kernels
from inarch_tpu.kv import XlaKVStore
from inarch_tpu.mesh import make_mesh
from inarch_tpu.program import array_of
from inarch_tpu.tensor import HOST, JaxTensor, uploaded

CACHE = "JAX_COMPILATION_CACHE_DIR"  # JAX's own variable for compiled programs on disk


@dataclass(frozen=True, eq=False)
class XlaTransfer:
    """shape: of what is no padding. after: what was given to the chips before, or None."""

    array: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    after: Any

    def ready(self) -> bool:
        parts = (self.array, self.after)
        return all(x.is_ready() for x in parts if isinstance(x, jax.Array))

    def wait(self) -> np.ndarray:
        jax.block_until_ready(self.after)
        found = np.asarray(self.array)
        return found[tuple(map(slice, self.shape))].astype(self.dtype)


class XlaDevice(Device):
    """All chips that JAX shows to this process; core tensors are made on the host and brought over."""

    def __init__(self, chips: Sequence[Any]) -> None:
        first = chips[0]
        self._chips, self._mesh = chips, make_mesh(chips)
        self._on_tpu = first.platform == "tpu"
        kind = first.device_kind if self._on_tpu else f"{cpu_name()} by JAX"
        self.info = DeviceInfo(
            name=f"{len(chips)} x {kind}" if len(chips) > 1 else kind,
            arch=first.device_kind if self._on_tpu else "xla_cpu",
            memory_bytes=self._memory()[0],
            libraries={"jax": jax.__version__, "jaxlib": jaxlib.__version__},
        )
        self.torch_device = HOST
        self._peak = 0
        self._last: Any = None  # the logits of the last step
        self._executor = XlaExecutor(self._mesh, self._ran)
        _cache_programs("tpu" if self._on_tpu else f"cpu-{_instructions()}")
        if self._on_tpu:
            self.step_tokens, self.running_requests = 2048, 128  # each bucket is compiled
        else:  # where JAX writes every page when it makes them, and others need memory too
            self.memory_share, self.step_tokens = 0.3, 512

    def _memory(self) -> tuple[int, int, int]:
        """Bytes of all chips: there, free, held by this process."""
        held = sum(array.nbytes for array in jax.live_arrays())
        if not self._on_tpu:
            memory = host_memory()
            return memory.total, memory.free, held
        stats = [chip.memory_stats() for chip in self._chips]
        total, used = (sum(s[name] for s in stats) for name in ("bytes_limit", "bytes_in_use"))
        return total, total - used, used

    def memory(self) -> MemoryStats:
        total, free, used = self._memory()
        return MemoryStats(total, free, max(self._peak, used), used)

    def reset_peak_memory(self) -> None:
        self._peak = 0

    def _ran(self, scratch: int, out: JaxTensor) -> None:
        """XLA knows beforehand what a program takes: that is the peak, and it costs no counter."""
        self._peak = (
            max(self._peak, scratch + self._memory()[2]) if self._peak < scratch else self._peak
        )
        self._last = out.array

    def upload(self, host: np.ndarray) -> Tensor:
        return uploaded(host)

    def download(self, tensor: Tensor) -> Transfer:
        array = array_of(tensor)
        if isinstance(array, jax.Array):
            array.copy_to_host_async()
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
        return XlaTransfer(array, tuple(tensor.shape), dtype, self._last)

    def synchronize(self) -> None:
        jax.block_until_ready(self._last)

    def dtypes(self, checkpoint: torch.dtype) -> Sequence[tuple[torch.dtype, str]]:
        native = (torch.bfloat16, "what the matrix units multiply")
        wide = (torch.float32, "exact; several passes of the matrix units")
        if self._on_tpu and checkpoint != torch.float32:
            return [native, wide]
        return [wide, native]

    def page_tokens(self) -> Sequence[tuple[int, str]]:
        if not self._on_tpu:
            return ()
        finer = [(size, "prefixes are shared in finer steps") for size in (64, 32, 16)]
        return [(128, "short page tables, long copies"), *finer]

    def kernels(self) -> Sequence[Kernel]:
        pallas = ragged.generation(self.info.arch) >= ragged.OLDEST
        return kernels(self._mesh, pallas=pallas)

    def kv_store(self, spec: KVSpec, page_tokens: int) -> XlaKVStore:
        return XlaKVStore(spec, page_tokens, self._mesh, ragged.LANES if self._on_tpu else 1)

    def executor(self) -> XlaExecutor:
        self._executor = XlaExecutor(self._mesh, self._ran)
        return self._executor

    def rehearse(self, step: Step, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        return self._executor.run_as_it_comes(step, inputs, kv)


def _cache_programs(folder: str) -> None:
    """Programs outlive the process: a server that restarts traces them, but compiles nothing."""
    if not os.environ.get(CACHE):
        kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(kept / "inarch/xla" / folder))


def _instructions() -> str:
    """Of this CPU, as a digest: a home folder may be shared by machines that have others."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(flags.encode()).hexdigest()[:8]


def open_device() -> XlaDevice:
    return XlaDevice(jax.local_devices())
