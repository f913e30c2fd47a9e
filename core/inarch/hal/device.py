"""What a backend opens: one accelerator, or one CPU, with its memory and its optional facets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from inarch.hal.op import Kernel
from inarch.hal.support import Support, yes

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from inarch.hal.collectives import Communicator
    from inarch.hal.executor import Executor, Step, StepInputs
    from inarch.hal.kv import KVSpec, KVState, KVStore


@dataclass(frozen=True)
class DeviceInfo:
    """Static facts of a device, for `doctor` and for kernels' predicates."""

    name: str  # "NVIDIA H200", "AMD EPYC 7763"
    arch: str  # "sm_90a", "gfx950", "x86_64+avx2"
    memory_bytes: int
    features: frozenset[str] = frozenset()
    libraries: Mapping[str, str] = field(default_factory=dict)  # name -> version


@dataclass(frozen=True)
class MemoryStats:
    """Bytes of the device's memory, as measured now."""

    total: int
    free: int
    peak: int  # most bytes this process held at once since `Device.reset_peak_memory`
    used: int  # bytes this process holds


class Transfer(Protocol):
    """A copy from the device to the host that may still be under way."""

    def ready(self) -> bool:
        """Whether `wait` would return at once."""
        ...

    def wait(self) -> np.ndarray:
        """Block until the bytes are here. May be called again; returns the same array."""
        ...


@dataclass(frozen=True)
class ReadyTransfer:
    """A transfer that was finished when it was made: the device's memory is the host's."""

    array: np.ndarray

    def ready(self) -> bool:
        return True

    def wait(self) -> np.ndarray:
        return self.array


class Device(ABC):
    """One opened device. Work given to it runs in the order in which it was given.

    The first group must be written by every backend. The second group may be left as it is: None or
    an empty table means that the core's reference serves, on this same device.
    """

    info: DeviceInfo
    torch_device: torch.device
    memory_share: float = 0.9  # of the device's memory that an engine takes by default
    step_tokens: int = 8192  # default token budget of a step
    running_requests: int = 256  # that run at once by default

    @abstractmethod
    def memory(self) -> MemoryStats: ...

    @abstractmethod
    def reset_peak_memory(self) -> None: ...

    @abstractmethod
    def upload(self, host: np.ndarray) -> Tensor:
        """Copy to the device; `host` may be changed as soon as this returns."""

    @abstractmethod
    def download(self, tensor: Tensor) -> Transfer:
        """Begin to copy to the host, in order with the work given so far."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all work given so far."""

    def close(self) -> None:
        """Give the device back."""
        return

    # ---- optional: what is not given here, the reference does ----

    def dtypes(self, checkpoint: torch.dtype) -> Sequence[tuple[torch.dtype, str]]:
        """Dtypes to compute in, best first for a checkpoint's dtype, each with the reason.

        The first is what `--dtype auto` takes; any other is refused with the list.
        """
        return [(checkpoint, "the checkpoint's own")]

    def page_tokens(self) -> Sequence[tuple[int, str]]:
        """Page sizes in tokens that the kernels take, best first, each with the reason; () = any."""
        return ()

    def kv_dtypes(self, compute: torch.dtype) -> Sequence[tuple[torch.dtype, Support]]:
        """Dtypes to keep K and V in, best first, when computing in `compute`: yes, or no and why.

        The first is what `--kv-dtype auto` takes; what is not listed is refused.
        """
        return [(compute, yes("the dtype computed in"))]

    def kernels(self) -> Sequence[Kernel]:
        """Implementations of ops and of facets: all that `inarch.hal.ops` names."""
        return ()

    def kv_store(self, spec: KVSpec, page_tokens: int) -> KVStore | None:
        return None

    def executor(self) -> Executor | None:
        """How steps are run. Not asked for if a part of the model is not capturable."""
        return None

    def rehearse(self, step: Step, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        """Run a step of padding, to measure its memory: of any shape, which may never come again."""
        return step(inputs, kv)

    def communicator(self, rank: int, size: int, address: str) -> Communicator | None:
        return None
