"""The experts facets made of their parts: tokens sorted by expert, two grouped products, a sum.

A backend that brings a grouped product alone makes this fast; one that brings the whole replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from inarch.hal.device import Device
from inarch.hal.experts import ExpertsSpec, ExpertWeights
from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.linear import PackedWeight
from inarch.hal.quantized_experts import (
    QuantizedExpertsSpec,
    QuantizedExpertWeights,
    QuantizedGroupedLinearSpec,
)


class GroupedProduct(Protocol):
    """GroupedLinear or QuantizedGroupedLinear, as the spec and the weights are."""

    @property
    def capturable(self) -> bool: ...

    def prepack(self, spec: Any, weight: Any, bias: Tensor | None) -> PackedWeight: ...

    def apply(self, x: Tensor, packed: PackedWeight, groups: RowGroups) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class PackedExperts:
    gate_up: PackedWeight
    down: PackedWeight
    experts: int
    scale_input: bool


@dataclass(frozen=True, eq=False)
class ComposedExperts:
    """activate: x [M, 2I] -> [M, I]. device: whose `download` tells the host the groups."""

    gate_up: GroupedProduct
    down: GroupedProduct
    activate: Callable[[Tensor], Tensor]
    device: Device | None = None

    @property
    def capturable(self) -> bool:
        return self.gate_up.capturable and self.down.capturable

    def prepack(
        self, spec: ExpertsSpec, weights: ExpertWeights | QuantizedExpertWeights
    ) -> PackedExperts:
        gate_up, down = grouped_specs(spec)
        return PackedExperts(
            self.gate_up.prepack(gate_up, weights.gate_up, weights.gate_up_bias),
            self.down.prepack(down, weights.down, weights.down_bias),
            spec.experts,
            spec.scale_input,
        )

    def apply(self, x: Tensor, experts: Tensor, weights: Tensor, packed: PackedWeight) -> Tensor:
        tokens, chosen = experts.shape
        order, groups = sort_by_expert(experts, packed.experts, self.device)
        rows = x[order // chosen]
        if packed.scale_input:
            rows = rows * weights.flatten()[order].unsqueeze(-1).to(x.dtype)
        hidden = self.activate(self.gate_up.apply(rows, packed.gate_up, groups))
        found = self.down.apply(hidden, packed.down, groups)
        given = (
            torch.empty_like(found).index_copy_(0, order, found).view(tokens, chosen, x.shape[1])
        )
        if packed.scale_input:
            return given.sum(dim=1)
        # A product of [1, k] and [k, H] for each token: its sum knows no other token.
        return (weights.to(x.dtype).unsqueeze(1) @ given).squeeze(1)


def grouped_specs(spec: ExpertsSpec) -> tuple[GroupedLinearSpec, GroupedLinearSpec]:
    """Of gate and up in one, and of down."""
    sizes = (spec.experts, spec.hidden, spec.intermediate, spec.dtype, spec.bias)
    down = GroupedLinearSpec(*sizes)
    if isinstance(spec, QuantizedExpertsSpec):
        down = QuantizedGroupedLinearSpec(
            *sizes, bits=spec.bits, group=spec.group, zero_points=spec.zero_points
        )
    return replace(down, outputs=2 * spec.intermediate, inputs=spec.hidden), down


def sort_by_expert(
    experts: Tensor, count: int, device: Device | None = None
) -> tuple[Tensor, RowGroups]:
    """For experts [T, k]: the indices [T * k] of its entries, sorted by expert, and their groups."""
    by_expert, order = experts.flatten().sort(stable=True)
    each = torch.arange(count, device=experts.device)
    ends = torch.searchsorted(by_expert, each, right=True, out_int32=True)
    return order, RowGroups(ends, device)
