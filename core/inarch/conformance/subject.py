"""What is under test: a backend, the device it opened or simulates, and the kernels there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.case import Failed, Refused
from inarch.hal.backend import Backend
from inarch.hal.device import Device
from inarch.hal.dispatch import REFERENCE, Dispatcher
from inarch.hal.kv import KVSpec, KVStore
from inarch.hal.op import Kernel
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.hal.support import Support

ANY_PAGE = 16  # tokens, where a device has no wish
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class Subject:
    """kernels: the device's own and those that other packages add. depth: how many of each case.

    place: where a process of its own finds the backend, as `Package.place`.
    """

    backend: Backend
    device: Device
    kernels: Sequence[Kernel]
    simulated: bool = False
    depth: int = 1
    place: str = ""

    @property
    def level(self) -> int:
        """Of cases about numbers."""
        return 2 if self.simulated else 3

    def dtypes(self) -> tuple[torch.dtype, ...]:
        """What it computes in, of float32, bfloat16 and float16."""
        offered = {found for one in DTYPES for found, _ in self.device.dtypes(one)}
        return tuple(dtype for dtype in DTYPES if dtype in offered)

    def page_tokens(self) -> tuple[int, ...]:
        return tuple(size for size, _ in self.device.page_tokens()) or (ANY_PAGE,)

    def store(self, spec: KVSpec, page_tokens: int) -> KVStore:
        """As the engine finds it."""
        own = self.device.kv_store(spec, page_tokens)
        return own or ReferenceKVStore(spec, page_tokens, self.device.torch_device)

    def dispatcher(self) -> Dispatcher:
        return Dispatcher(self.kernels)

    def candidates(self, op: str, facts: Mapping[str, Any], reference: Any) -> Iterator[Candidate]:
        """Every kernel of the op, those that refuse too; the reference where no other would serve."""
        own = [Candidate(k.name, k.load, ask(k, facts)) for k in self.kernels if k.op == op]
        yield from own
        if not any(candidate.answer for candidate in own):
            yield Candidate(REFERENCE, lambda: reference, Support(True))

    def upload(self, host: Tensor) -> Tensor:
        """A host tensor on the device, in its own dtype, which numpy need not know."""
        if host.dtype in (torch.bfloat16, torch.float16):
            return self.device.upload(host.float().numpy()).to(host.dtype)
        if host.dtype.itemsize == 1 and host.dtype.is_floating_point:
            return self.device.upload(host.view(torch.uint8).numpy()).view(host.dtype)
        return self.device.upload(host.numpy())

    def load(self, host: Tensor) -> Tensor:
        """A host tensor where models find their weights."""
        return host.to(self.device.torch_device)

    def download(self, tensor: Tensor) -> Tensor:
        """On the host: floats as float64, anything else as it is."""
        if not isinstance(tensor, Tensor):
            raise Failed(f"gave {type(tensor).__name__} where a tensor was due")
        if tensor.dtype.is_floating_point:
            wide = tensor if tensor.dtype == torch.float64 else tensor.float()
            return torch.from_numpy(self._fetch(wide)).double()
        return torch.from_numpy(self._fetch(tensor))

    def _fetch(self, tensor: Tensor) -> np.ndarray:
        return self.device.download(tensor.contiguous()).wait().copy()


@dataclass(frozen=True)
class Candidate:
    """One way to run an op under some facts. answer: an exception if the predicate raised it."""

    name: str
    load: Callable[[], Any]
    answer: Support | Exception

    def loaded(self) -> Any:
        """The implementation. Raises Refused, or what the predicate raised."""
        if isinstance(self.answer, Exception):
            raise Failed(f"its predicate raised {type(self.answer).__name__}: {self.answer}")
        if not self.answer:
            raise Refused(self.answer.why)
        return self.load()


def ask(kernel: Kernel, facts: Mapping[str, Any]) -> Support | Exception:
    """The answer of a kernel's predicate, or what is wrong with it."""
    try:
        answer = kernel.supports(facts)
    except Exception as error:
        return error
    if not isinstance(answer, Support):
        return TypeError(f"it gave {answer!r} instead of a Support: use yes() or no('why')")
    if not answer and not answer.why.strip():
        return ValueError("it refuses without a reason: use no('why')")
    return answer


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
