"""Experts by our kernels: the layer behind its router as a whole, and the grouped product alone.

Weights are packed as those of linear layers are, expert after expert, so that all of a step's rows are
multiplied in one region of work: see csrc/multiply.h. Only experts that have rows are read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.hal.experts import ExpertsSpec, ExpertWeights
from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.linear import PackedWeight
from inarch.hal.quantized_experts import (
    QuantizedExpertsSpec,
    QuantizedExpertWeights,
    QuantizedGroupedLinearSpec,
)
from inarch.hal.quantized_linear import QuantizedWeight
from inarch.hal.reference.experts import grouped_specs
from inarch_intel_cpu.dtypes import TYPES
from inarch_intel_cpu.linear import pack_plain
from inarch_intel_cpu.native import Native
from inarch_intel_cpu.ops import CLAMPED_SWIGLU, GATED
from inarch_intel_cpu.quantized_linear import pack_quantized

MOST_ROWS = 4096  # that are worked on at a time: see csrc/experts.cpp
ACTIVATIONS = {
    "silu": GATED["silu_mul"],
    "gelu_tanh": GATED["gelu_mul"],
    "clamped_swiglu": CLAMPED_SWIGLU,
}


@dataclass(frozen=True, eq=False)
class PackedStack:
    """The weights of all experts. numbers: the struct Weights of csrc/multiply.h."""

    numbers: Tensor
    outputs: int
    kept: tuple[Tensor | None, ...]  # what it points to


@dataclass(frozen=True, eq=False)
class PackedExperts:
    """layer: the struct Layer of csrc/experts.cpp."""

    layer: Tensor
    gate_up: PackedStack
    down: PackedStack
    alpha: float
    limit: float


def pack_stack(
    native: Native,
    spec: GroupedLinearSpec,
    weight: Tensor | QuantizedWeight,
    bias: Tensor | None,
) -> PackedStack:
    """Weights [E, N, K] and bias [E, N]."""
    padded = None
    if bias is not None and not bias.is_meta:
        padded = torch.zeros(spec.experts, -(-spec.outputs // native.panel) * native.panel)
        padded[:, : spec.outputs] = bias
    if isinstance(weight, QuantizedWeight):
        assert isinstance(spec, QuantizedGroupedLinearSpec)
        packed = pack_quantized(native, spec.of_one, weight)
        values, scales, zeros = packed.values, packed.scales, packed.zeros
        kinds = (spec.bits, TYPES[scales.dtype])
        groups = (packed.group, packed.scale_groups)
    else:
        values, scales, zeros = pack_plain(native, weight), None, None
        kinds, groups = (0, TYPES[values.dtype]), (0, 0)
    kept = (values, scales, zeros, padded)
    places = (0 if part is None or part.is_meta else part.data_ptr() for part in kept)
    numbers = (*kinds, spec.inputs, spec.outputs, *groups, *places)
    return PackedStack(torch.tensor(numbers, dtype=torch.int64), spec.outputs, kept)


class NativeGroupedLinear:
    """Serves "grouped_linear" and "quantized_grouped_linear"."""

    capturable = False  # nothing would be won

    def __init__(self, native: Native) -> None:
        self._native, self._run = native, native.kernel("grouped_linear")

    def prepack(
        self, spec: GroupedLinearSpec, weight: Tensor | QuantizedWeight, bias: Tensor | None
    ) -> PackedStack:
        return pack_stack(self._native, spec, weight, bias)

    def apply(self, x: Tensor, packed: PackedWeight, groups: RowGroups) -> Tensor:
        x = x if x.is_contiguous() else x.contiguous()
        out = torch.empty((len(x), packed.outputs), dtype=x.dtype)
        ends = groups.ends.contiguous()
        self._run(x, TYPES[x.dtype], packed.numbers, ends, len(ends), out)
        return out


class NativeExperts:
    """Serves "experts" and "quantized_experts"."""

    capturable = False

    def __init__(self, native: Native) -> None:
        self._native, self._run = native, native.kernel("experts")

    def prepack(
        self,
        spec: ExpertsSpec | QuantizedExpertsSpec,
        weights: ExpertWeights | QuantizedExpertWeights,
    ) -> PackedExperts:
        gate_up, down = grouped_specs(spec)
        layer = (
            *(spec.experts, spec.top_k, spec.hidden, spec.intermediate),
            *(ACTIVATIONS[spec.activation], int(spec.scale_input)),
        )
        return PackedExperts(
            torch.tensor(layer, dtype=torch.int64),
            pack_stack(self._native, gate_up, weights.gate_up, weights.gate_up_bias),
            pack_stack(self._native, down, weights.down, weights.down_bias),
            spec.alpha,
            spec.limit or 0.0,
        )

    def apply(self, x: Tensor, experts: Tensor, weights: Tensor, packed: PackedWeight) -> Tensor:
        x, experts, weights = (t.contiguous() for t in (x, experts, weights))
        out = torch.empty_like(x)
        self._run(
            packed.layer, packed.gate_up.numbers, packed.down.numbers, x, TYPES[x.dtype], len(x),
            experts, weights, out, packed.alpha, packed.limit,
        )  # fmt: skip
        return out
