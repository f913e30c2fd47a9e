"""Bring several host arrays to the device in a single copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 16  # bytes: what Triton likes to know of a pointer


@dataclass(frozen=True)
class Packed:
    """The bytes of all arrays, each at a multiple of ALIGNMENT, and where they are."""

    host: np.ndarray  # uint8
    places: Mapping[str, tuple[int, np.ndarray]]  # name -> its first byte, the array

    def view(self, there: Tensor, name: str) -> Tensor:
        """The array `name` within the bytes `there` on the device."""
        at, array = self.places[name]
        dtype = getattr(torch, array.dtype.name)
        return there[at : at + array.nbytes].view(dtype).view(array.shape)


def pack(arrays: Mapping[str, np.ndarray]) -> Packed:
    places, size = {}, 0
    for name, array in arrays.items():
        places[name] = size, array
        size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    host = np.empty(size, np.uint8)
    for at, array in places.values():
        host[at : at + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return Packed(host, places)
