"""Linear layers with small integer weights: CANN scales them while it multiplies, or multiplies integers.

Weights of 8 or 4 bits, scaled in groups, are made floating-point inside the operator. Weights of 8 bits
with one scale for an output are multiplied as integers, with activations that are rounded to 8 bits by
a scale of each token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.hal.linear import PackedWeight
from inarch.hal.quantized_linear import QuantizedLinearSpec, QuantizedWeight


@dataclass(frozen=True, eq=False)
class ScaledWeight:
    """weight [K, N] int8, or [K, N / 8] int32 with eight values of 4 bits in each."""

    weight: Tensor
    scales: Tensor  # [G, N] in the dtype of activations
    offsets: Tensor | None  # as scales: what is added to a value before it is scaled
    group: int  # inputs of a scale; 0: all
    bias: Tensor | None


class WeightQuantMatmul:
    """Serves what `kernels.supports_scaled_weight` accepts."""

    def prepack(
        self, spec: QuantizedLinearSpec, weight: QuantizedWeight, bias: Tensor | None
    ) -> ScaledWeight:
        packed = signed(spec, weight).T.contiguous()
        if spec.bits == 4:
            packed = torch.ops.npu.npu_convert_weight_to_int4pack(packed.int())
        offsets = None
        if weight.zeros is not None:
            offsets = _by_group((1 << (spec.bits - 1)) - weight.zeros.float(), spec)
        # The operator takes the bias of bfloat16 products in float32.
        wide = torch.float32 if spec.dtype == torch.bfloat16 else spec.dtype
        return ScaledWeight(
            packed,
            _by_group(weight.scales, spec),
            offsets,
            group_size(spec.group, spec.inputs),
            None if bias is None else bias.to(wide),
        )

    def apply(self, x: Tensor, packed: PackedWeight) -> Tensor:
        out: Tensor = torch.ops.npu.npu_weight_quant_batchmatmul(
            x.contiguous(),
            packed.weight,
            packed.scales,
            packed.offsets,
            bias=packed.bias,
            antiquant_group_size=packed.group,
        )
        return out


class QuantMatmul:
    """Serves what `kernels.supports_integers` accepts."""

    def prepack(
        self, spec: QuantizedLinearSpec, weight: QuantizedWeight, bias: Tensor | None
    ) -> tuple[Tensor, ...]:
        wide = None if bias is None else bias.float()
        return signed(spec, weight).T.contiguous(), weight.scales.flatten().float(), wide

    def apply(self, x: Tensor, packed: PackedWeight) -> Tensor:
        weight, scales, bias = packed
        rounded, of_tokens = torch.ops.npu.npu_dynamic_quant(x)
        out: Tensor = torch.ops.npu.npu_quant_matmul(
            rounded, weight, scales, pertoken_scale=of_tokens, bias=bias, output_dtype=x.dtype
        )
        return out


def group_size(group: int | None, inputs: int) -> int:
    """Inputs of a scale as the operator wants it told: 0 where all have one."""
    return group if group is not None and group < inputs else 0


def signed(spec: QuantizedLinearSpec, weight: QuantizedWeight) -> Tensor:
    """The values [N, K] int8, less half of the range."""
    return (weight.values.to(torch.int16) - (1 << (spec.bits - 1))).to(torch.int8)


def _by_group(x: Tensor, spec: QuantizedLinearSpec) -> Tensor:
    """[N, G] -> [G, N]"""
    return x.T.to(spec.dtype).contiguous()
