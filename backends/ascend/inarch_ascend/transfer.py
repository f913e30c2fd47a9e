"""Copies between host and NPU through pinned memory, in order with the work on the stream.

torch-npu's allocator of pinned memory hands a block out again only when the last copy that used it
has finished, so neither side waits for the other.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inarch.hal.packing import Packing


def upload(host: np.ndarray, device: torch.device) -> Tensor:
    """A new tensor on `device`; `host`, of any shape, may be changed as soon as this returns."""
    dtype = torch.from_numpy(np.empty(0, host.dtype)).dtype
    staged = torch.empty(host.shape, dtype=dtype, pin_memory=True)
    staged.numpy()[...] = host
    return staged.to(device, non_blocking=True)


def pinned(packing: Packing) -> Tensor:
    """The bytes of a packing, ready to be copied over."""
    host = torch.empty(packing.size, dtype=torch.uint8, pin_memory=True)
    packing.write(host.numpy())
    return host


class PinnedTransfer:
    """A copy to the host that was begun when this was made."""

    def __init__(self, tensor: Tensor) -> None:
        staged = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        staged.copy_(tensor, non_blocking=True)
        self._staged: Tensor | None = staged
        self._done = torch.npu.Event()
        self._done.record()
        self._array = np.empty(0)

    def ready(self) -> bool:
        return bool(self._done.query())

    def wait(self) -> np.ndarray:
        """Block until the bytes are here. May be called again; returns the same array."""
        if self._staged is not None:
            self._done.synchronize()
            self._array = self._staged.numpy().copy()  # the pinned block is free for the next one
            self._staged = None
        return self._array
