"""Bring several host arrays to the device in a single copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from inarch.hal.device import Device

ALIGNMENT = 16  # bytes: what vector loads want
TORCH_DTYPE = {
    np.dtype(name): getattr(torch, name)
    for name in ("bool", "uint8", "int32", "int64", "float32", "float64")
}


@dataclass(frozen=True)
class Packing:
    """Arrays as one run of `size` bytes, each from a multiple of ALIGNMENT on."""

    arrays: Mapping[str, np.ndarray]
    places: Mapping[str, int]  # name -> its first byte
    size: int

    def write(self, host: np.ndarray) -> None:
        """Copy the arrays into the bytes [size] `host`."""
        for name, array in self.arrays.items():
            at = self.places[name]
            host[at : at + array.nbytes].view(array.dtype).reshape(array.shape)[...] = array

    def views(self, there: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """The arrays `names` within the bytes `there` on the device."""
        found = {}
        for name in names:
            at, array = self.places[name], self.arrays[name]
            flat = there[at : at + array.nbytes].view(TORCH_DTYPE[array.dtype])
            found[name] = flat if array.ndim == 1 else flat.view(array.shape)
        return found


def pack(arrays: Mapping[str, np.ndarray]) -> Packing:
    """Say where each array goes: in their order, so that later ones do not move earlier ones."""
    places, size = {}, 0
    for name, array in arrays.items():
        places[name] = size
        size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return Packing(arrays, places, size)


def upload(device: Device, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The arrays on the device, in fresh memory."""
    packing = pack(arrays)
    host = np.empty(packing.size, dtype=np.uint8)
    packing.write(host)
    return packing.views(device.upload(host), arrays)
