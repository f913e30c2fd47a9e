"""Linear layers by weights of 8 or 4 bits: activations are rounded to 8 bits on the way.

Each group of a weight's inputs shares one scale of the activations too, so that an outlier spoils no
more than its own group. Products and their sums within a group are exact integers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.linear import PackedWeight
from inarch.hal.quantized_linear import QuantizedLinearSpec, QuantizedWeight
from inarch_intel_cpu.dtypes import TYPES
from inarch_intel_cpu.linear import padded_bias
from inarch_intel_cpu.native import Native

WHOLE = 128  # inputs that share a scale of activations where all of an output share a weight's
GROUPS = (32, 64, 96, 128, 256, 512)


@dataclass(frozen=True, eq=False)
class PackedQuantized:
    """Panels of values, scales and zero points: see quantized.cpp."""

    spec: QuantizedLinearSpec
    values: Tensor  # uint8
    scales: Tensor  # float16 if no bit is lost, else float32
    zeros: Tensor | None  # uint8
    bias: Tensor | None  # float32
    scale_groups: int
    group: int


class NativeQuantizedLinear:
    """Serves 8 and 4 bits in GROUPS, or with one scale for each output."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._run = native.kernel("quantized_linear")

    def prepack(
        self, spec: QuantizedLinearSpec, weight: QuantizedWeight, bias: Tensor | None
    ) -> PackedQuantized:
        parts = (weight.values, weight.scales, weight.zeros)
        one = QuantizedWeight(*(None if part is None else part.unsqueeze(0) for part in parts))
        if not weight.values.is_meta:
            bias = padded_bias(bias, -(-spec.outputs // self._native.panel) * self._native.panel)
        return replace(pack_quantized(self._native, spec, one), bias=bias)

    def apply(self, x: Tensor, packed: PackedWeight) -> Tensor:
        x = x if x.is_contiguous() else x.contiguous()
        spec, rows = packed.spec, x.shape[0]
        out = torch.empty((rows, spec.outputs), dtype=x.dtype)
        self._run(
            x, TYPES[x.dtype], spec.bits, packed.values, packed.scales, TYPES[packed.scales.dtype],
            packed.scale_groups, packed.zeros, packed.bias, out, rows, spec.inputs, spec.outputs,
            packed.group,
        )  # fmt: skip
        return out


def pack_quantized(
    native: Native, spec: QuantizedLinearSpec, weights: QuantizedWeight
) -> PackedQuantized:
    """Weights [E, N, K], each as the spec says -> panels, one weight's after the other's; no bias."""
    group, scale_groups = spec.group or WHOLE, spec.scheme.groups(spec.inputs)
    values, scales, zeros = weights.values, weights.scales, weights.zeros
    if not values.is_meta:
        panel = native.panel
        outputs, inputs = -(-spec.outputs // panel) * panel, -(-spec.inputs // group) * group
        packed = torch.empty((len(values), outputs * inputs * spec.bits // 8), dtype=torch.uint8)
        pack = native.kernel("pack_quantized")
        for given, to in zip(values, packed, strict=True):
            pack(given.contiguous(), to, spec.bits, spec.outputs, spec.inputs, inputs)
        values, scales = packed.flatten(), _panels(_narrowed(scales), panel)
        zeros = None if zeros is None else _panels(zeros, panel)
    return PackedQuantized(spec, values, scales, zeros, None, scale_groups, group)


def _panels(of_groups: Tensor, panel: int) -> Tensor:
    """[E, N, G] -> [E, panels, G, panel], zeros after the last output."""
    count, outputs, groups = of_groups.shape
    padded = F.pad(of_groups, (0, 0, 0, -outputs % panel))
    return padded.view(count, -1, panel, groups).transpose(2, 3).contiguous()


def _narrowed(scales: Tensor) -> Tensor:
    half = scales.half()
    return half if torch.equal(half.float(), scales) else scales
