"""Experts whose weights are small integers: the facets of hal/experts.py and hal/grouped_linear.py again.

They are facets of their own so that a kernel which multiplies by plain weights is never asked. Routers
keep their precision: which experts serve a token must not hang on rounding. Letters in shapes: T
tokens, M rows, k experts of a token, E experts, N outputs, K inputs, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from inarch.hal.experts import ExpertsSpec
from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.linear import PackedWeight
from inarch.hal.quantized_linear import QuantizedLinearSpec, QuantizedWeight


@dataclass(frozen=True, kw_only=True)
class QuantizedGroupedLinearSpec(GroupedLinearSpec):
    """See QuantizationScheme."""

    bits: int
    group: int | None
    zero_points: bool

    @property
    def of_one(self) -> QuantizedLinearSpec:
        """What the weight of each expert is."""
        scheme = (self.bits, self.group, self.zero_points)
        return QuantizedLinearSpec(self.outputs, self.inputs, self.dtype, *scheme, self.bias)


@dataclass(frozen=True, kw_only=True)
class QuantizedExpertsSpec(ExpertsSpec):
    """See QuantizationScheme."""

    bits: int
    group: int | None
    zero_points: bool


@dataclass(frozen=True, eq=False)
class QuantizedExpertWeights:
    """As ExpertWeights, with values [E, N, K], scales and zeros [E, N, G]."""

    gate_up: QuantizedWeight
    down: QuantizedWeight
    gate_up_bias: Tensor | None = None  # [E, 2I]
    down_bias: Tensor | None = None  # [E, H]


class QuantizedGroupedLinear(Protocol):
    """What a kernel of the facet "quantized_grouped_linear" is: see GroupedLinear."""

    @property
    def capturable(self) -> bool: ...

    def prepack(
        self, spec: QuantizedGroupedLinearSpec, weight: QuantizedWeight, bias: Tensor | None
    ) -> PackedWeight:
        """Pack values [E, N, K] with their scales and bias [E, N]. They must not be written to."""
        ...

    def apply(self, x: Tensor, packed: PackedWeight, groups: RowGroups) -> Tensor:
        """x [M, K], sorted by expert -> [M, N] in the spec's dtype."""
        ...


class QuantizedExperts(Protocol):
    """What a kernel of the facet "quantized_experts" is: see Experts."""

    @property
    def capturable(self) -> bool: ...

    def prepack(
        self, spec: QuantizedExpertsSpec, weights: QuantizedExpertWeights
    ) -> PackedWeight: ...

    def apply(self, x: Tensor, experts: Tensor, weights: Tensor, packed: PackedWeight) -> Tensor:
        """x [T, H], experts [T, k] int64 and their weights [T, k] float32 -> [T, H]."""
        ...
