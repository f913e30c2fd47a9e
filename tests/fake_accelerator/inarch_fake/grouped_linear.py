"""Linear layers of many experts without asking the host which rows are whose: they can be captured."""

from __future__ import annotations

import torch
from torch import Tensor

from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.linear import PackedWeight
from inarch_fake.memory import DEVICE


class FakeGroupedLinear:
    """Gathers for each row the weight of its expert."""

    capturable = True

    def prepack(self, spec: GroupedLinearSpec, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        return weight, bias

    def apply(self, x: Tensor, packed: PackedWeight, groups: RowGroups) -> Tensor:
        weight, bias = packed
        rows = torch.arange(x.shape[0], device=DEVICE)
        owners = (groups.ends <= rows[:, None]).sum(-1).clamp(max=weight.shape[0] - 1)
        out = (weight.index_select(0, owners) @ x.unsqueeze(-1)).squeeze(-1)
        return out if bias is None else out + bias.index_select(0, owners)
