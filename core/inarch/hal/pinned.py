"""Copies between host and device through pinned memory, in order with the work on the current stream.

For backends of hardware that torch knows. torch's caching allocator of pinned memory hands a block out
again only when the last copy that used it has finished, so neither side waits for the other.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from inarch.hal.packing import Packing


def upload(host: np.ndarray, device: torch.device) -> Tensor:
    """A new tensor on `device`; `host`, of any shape, may be changed as soon as this returns."""
    dtype = torch.from_numpy(np.empty(0, host.dtype)).dtype
    pinned = torch.empty(host.shape, dtype=dtype, pin_memory=True)
    pinned.numpy()[...] = host
    return pinned.to(device, non_blocking=True)


def staged(packing: Packing) -> Tensor:
    """The bytes of a packing, ready to be copied over."""
    host = torch.empty(packing.size, dtype=torch.uint8, pin_memory=True)
    packing.write(host.numpy())
    return host


class Event(Protocol):
    """A point in the work on the current stream: torch's module of every such hardware has a class."""

    def record(self) -> None: ...

    def query(self) -> bool: ...

    def synchronize(self) -> None: ...


class PinnedTransfer:
    """A copy to the host that was begun when this was made. done: new, to mark the copy's end with."""

    def __init__(self, tensor: Tensor, done: Event) -> None:
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        pinned.copy_(tensor, non_blocking=True)
        self._pinned: Tensor | None = pinned
        self._done = done
        self._done.record()
        self._array = np.empty(0)

    def ready(self) -> bool:
        return bool(self._done.query())

    def wait(self) -> np.ndarray:
        """Block until the bytes are here. May be called again; returns the same array."""
        if self._pinned is not None:
            self._done.synchronize()
            self._array = self._pinned.numpy().copy()  # the pinned block is free for the next one
            self._pinned = None
        return self._array
