"""Linear layers: weights are prepacked once at load, then applied.

The core hands over one canonical weight at a time and drops it afterwards, so that loading holds the
packed model plus a single layer. Letters in shapes: T tokens, N outputs, K inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

PackedWeight = Any


@dataclass(frozen=True)
class LinearSpec:
    """Static facts of a linear layer: what a kernel's predicate sees."""

    outputs: int  # on this rank
    inputs: int
    dtype: torch.dtype
    bias: bool = False
    # Whether the layer ends a pair, as what follows attention or an activation does. Where features
    # are divided among chips, the first of a pair is by outputs and its last by inputs: nothing need
    # move between the two.
    ends_pair: bool = False


class Linear(Protocol):
    """What a kernel of the facet "linear" is: an object that packs weights and applies them."""

    def prepack(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        """Pack weight [N, K] and bias [N], on the device in the spec's dtype.

        They may be kept as they are but must not be written to: a tied head is packed from the
        embedding's own tensor.
        """
        ...

    def apply(self, x: Tensor, packed: PackedWeight) -> Tensor:
        """x [T, K] -> x @ weight.T + bias [T, N]."""
        ...
