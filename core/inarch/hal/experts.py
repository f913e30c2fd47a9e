"""The experts of a layer as one facet: a backend may bring the whole, or only the parts of it.

Letters in shapes: T tokens, k experts of each, E experts, H hidden, I intermediate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from inarch.hal.linear import PackedWeight


@dataclass(frozen=True)
class ExpertsSpec:
    """Static facts: what a kernel's predicate sees.

    activation: "silu" or "gelu_tanh": act(gate) * up; "clamped_swiglu": see that op, with alpha and
    limit. scale_input: the weights multiply what an expert reads, not what it gives.
    """

    experts: int  # on this rank
    top_k: int
    hidden: int
    intermediate: int
    dtype: torch.dtype
    activation: str = "silu"
    alpha: float = 1.0
    limit: float | None = None
    bias: bool = False
    scale_input: bool = False


@dataclass(frozen=True, eq=False)
class ExpertWeights:
    """The canonical tensors of a layer's experts, on the device in the spec's dtype."""

    gate_up: Tensor  # [E, 2I, H]: gates before ups
    down: Tensor  # [E, H, I]
    gate_up_bias: Tensor | None = None  # [E, 2I]
    down_bias: Tensor | None = None  # [E, H]


class Experts(Protocol):
    """What a kernel of the facet "experts" is: an object that packs weights and applies them."""

    @property
    def capturable(self) -> bool:
        """Whether `apply` may be recorded and replayed with other tokens."""
        ...

    def prepack(self, spec: ExpertsSpec, weights: ExpertWeights) -> PackedWeight:
        """Pack the weights, which may be kept as they are but must not be written to."""
        ...

    def apply(self, x: Tensor, experts: Tensor, weights: Tensor, packed: PackedWeight) -> Tensor:
        """x [T, H], experts [T, k] int64 and their weights [T, k] float32 -> [T, H]."""
        ...
