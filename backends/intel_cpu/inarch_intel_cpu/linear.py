"""Linear layers by our kernels, from weights that are packed once.

A float32 weight whose every value a 16-bit type can hold, as all are that come from a 16-bit
checkpoint, is kept in that type: half the bytes to read, and not a bit of the answer changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.hal.linear import LinearSpec, PackedWeight
from inarch_intel_cpu.dtypes import TYPES
from inarch_intel_cpu.native import Native

NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class PackedLinear:
    weight: Tensor  # see linear.cpp
    bias: Tensor | None  # float32, zeros after the last output
    outputs: int
    inputs: int


class NativeLinear:
    """Serves float32, bfloat16 and float16. Sums are float32."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._run = native.kernel("linear")

    def prepack(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> PackedLinear:
        packed = pack_plain(self._native, weight.unsqueeze(0))
        if not weight.is_meta:
            bias = padded_bias(bias, -(-spec.outputs // self._native.panel) * self._native.panel)
        return PackedLinear(packed, bias, spec.outputs, spec.inputs)

    def apply(self, x: Tensor, packed: PackedWeight) -> Tensor:
        x = x if x.is_contiguous() else x.contiguous()
        rows, weight = x.shape[0], packed.weight
        out = torch.empty((rows, packed.outputs), dtype=x.dtype)
        self._run(
            x, TYPES[x.dtype], weight, TYPES[weight.dtype], packed.bias, out, rows, packed.inputs,
            packed.outputs,
        )  # fmt: skip
        return out


def pack_plain(native: Native, weights: Tensor) -> Tensor:
    """Weights [E, N, K] -> panels, one weight's after the other's."""
    if weights.is_meta:
        return weights
    weights = _narrowed(weights.flatten(0, 1)).view(weights.shape).contiguous()
    count, outputs, inputs = weights.shape
    step = native.bf16_inputs if weights.dtype == torch.bfloat16 else 1
    padded = (-(-outputs // native.panel) * native.panel, -(-inputs // step) * step)
    packed = torch.empty((count, padded[0] * padded[1]), dtype=weights.dtype)
    pack = native.kernel("pack_linear")
    for weight, to in zip(weights, packed, strict=True):
        pack(weight, TYPES[weight.dtype], to, outputs, inputs)
    return packed.flatten()


def padded_bias(bias: Tensor | None, outputs: int) -> Tensor | None:
    if bias is None:
        return None
    padded = torch.zeros(outputs)
    padded[: len(bias)] = bias
    return padded


def _narrowed(weight: Tensor) -> Tensor:
    """In the narrowest type that holds every value."""
    if weight.dtype != torch.float32:
        return weight
    for dtype in NARROW:
        narrow = weight.to(dtype)
        pieces = zip(torch.split(narrow, 4096), torch.split(weight, 4096), strict=True)
        if all(torch.equal(piece.float(), whole) for piece, whole in pieces):
            return narrow
    return weight
