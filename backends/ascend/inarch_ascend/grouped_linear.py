"""Linear layers of many experts by one operator.

It reads the groups on the device, so that steps with it may be captured.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.linear import PackedWeight

ONE_OUTPUT, BY_ROWS, ENDS = 3, 0, 0  # split_item, group_type, group_list_type


@dataclass(frozen=True)
class PackedExperts:
    weight: Tensor  # [E, K, N]
    bias: Tensor | None  # [E, N]


class GroupedMatmul:
    """Serves what `kernels.supports_dtype` accepts."""

    capturable = True

    def prepack(
        self, spec: GroupedLinearSpec, weight: Tensor, bias: Tensor | None
    ) -> PackedExperts:
        return PackedExperts(weight.transpose(1, 2).contiguous(), bias)

    def apply(self, x: Tensor, packed: PackedWeight, groups: RowGroups) -> Tensor:
        out: Tensor = torch.ops.npu.npu_grouped_matmul(
            [x.contiguous()],
            [packed.weight],
            group_list=groups.ends.long(),
            split_item=ONE_OUTPUT,
            group_type=BY_ROWS,
            group_list_type=ENDS,
        )[0]
        if packed.bias is None:
            return out
        # The operator takes a bias of 16-bit rows in float32 only, and one for each of its weights.
        rows = torch.arange(len(x), device=x.device)
        return out + packed.bias[torch.searchsorted(groups.ends, rows, right=True)]
