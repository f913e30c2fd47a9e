"""Linear layers by weights of 8 or 4 bits: activations are rounded to 8 bits on the way.

Each group of a weight's inputs shares one scale of the activations too, so that an outlier spoils no
more than its own group. Products and their sums within a group are exact integers.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        group, scale_groups = spec.group or WHOLE, spec.scheme.groups(spec.inputs)
        values, scales, zeros = weight.values, weight.scales, weight.zeros
        if not values.is_meta:
            panel = self._native.panel
            outputs = -(-spec.outputs // panel) * panel
            inputs = -(-spec.inputs // group) * group
            packed = torch.empty(outputs * inputs * spec.bits // 8, dtype=torch.uint8)
            pack = self._native.kernel("pack_quantized")
            pack(values.contiguous(), packed, spec.bits, spec.outputs, spec.inputs, inputs)
            values, scales = packed, _panels(_narrowed(scales), panel)
            zeros = None if zeros is None else _panels(zeros, panel)
            bias = padded_bias(bias, outputs)
        return PackedQuantized(spec, values, scales, zeros, bias, scale_groups, group)

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


def _panels(of_groups: Tensor, panel: int) -> Tensor:
    """[N, G] -> [panels, G, panel], zeros after the last output."""
    outputs, groups = of_groups.shape
    padded = F.pad(of_groups, (0, 0, 0, -outputs % panel))
    return padded.view(-1, panel, groups).transpose(1, 2).contiguous()


def _narrowed(scales: Tensor) -> Tensor:
    half = scales.half()
    return half if torch.equal(half.float(), scales) else scales
