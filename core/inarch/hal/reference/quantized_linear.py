"""The quantized linear facet in plain torch: the weight is made floating-point at every use."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.linear import PackedWeight
from inarch.hal.quantized_linear import QuantizedLinearSpec, QuantizedWeight


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """values [N, K], or two of 4 bits in a byte: [N, (K + 1) // 2]."""

    spec: QuantizedLinearSpec
    values: Tensor
    scales: Tensor
    zeros: Tensor | None
    bias: Tensor | None


class ReferenceQuantizedLinear:
    """Holds little memory and takes much time."""

    def prepack(
        self, spec: QuantizedLinearSpec, weight: QuantizedWeight, bias: Tensor | None
    ) -> PackedWeight:
        values = weight.values
        if spec.bits == 4:
            even = F.pad(values, (0, values.shape[1] % 2))
            values = even[:, ::2] | (even[:, 1::2] << 4)
        return StoredWeight(spec, values, weight.scales, weight.zeros, bias)

    def apply(self, x: Tensor, packed: PackedWeight) -> Tensor:
        spec, values = packed.spec, packed.values
        if spec.bits == 4:
            both = torch.stack((values & 15, values >> 4), dim=-1)
            values = both.flatten(1)[:, : spec.inputs]
        weight = dequantize(spec, QuantizedWeight(values, packed.scales, packed.zeros))
        return F.linear(x, weight, packed.bias)


def dequantize(spec: QuantizedLinearSpec, weight: QuantizedWeight) -> Tensor:
    """The weight [N, K] in the spec's dtype."""
    group = spec.group or spec.inputs
    values = weight.values.float()
    if weight.zeros is None:
        values -= 1 << (spec.bits - 1)
    else:
        values -= _each_input(weight.zeros, group, spec.inputs).float()
    return (values * _each_input(weight.scales, group, spec.inputs)).to(spec.dtype)


def _each_input(of_groups: Tensor, group: int, inputs: int) -> Tensor:
    """[N, G] -> [N, K]"""
    return of_groups.repeat_interleave(group, dim=1)[:, :inputs]
