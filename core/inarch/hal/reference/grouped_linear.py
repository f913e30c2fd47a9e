"""The grouped linear facet in plain torch: one product for each expert that has rows."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.linear import PackedWeight


class ReferenceGroupedLinear:
    """Keeps [E, N, K]. The host must know the groups, so a step with it cannot be captured."""

    capturable = False

    def prepack(self, spec: GroupedLinearSpec, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        return weight, bias

    def apply(self, x: Tensor, packed: PackedWeight, groups: RowGroups) -> Tensor:
        weight, bias = packed
        out = x.new_empty(len(x), weight.shape[1])
        start = 0
        for expert, end in enumerate(groups.on_host):
            if end > start:
                own = None if bias is None else bias[expert]
                out[start:end] = F.linear(x[start:end], weight[expert], own)
            start = end
        return out
