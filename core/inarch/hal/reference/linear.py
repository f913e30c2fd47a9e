"""The linear facet in plain torch: the weight as it came."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from inarch.hal.linear import LinearSpec, PackedWeight


class ReferenceLinear:
    """Keeps [N, K]: torch multiplies by a transposed weight at full speed in every dtype."""

    def prepack(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        return weight, bias

    def apply(self, x: Tensor, packed: PackedWeight) -> Tensor:
        weight, bias = packed
        return F.linear(x, weight, bias)
