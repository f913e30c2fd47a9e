"""The experts of a layer in five operators: sort by expert, two grouped products, weigh and add."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.hal.experts import ExpertsSpec, ExpertWeights
from inarch.hal.linear import PackedWeight

ONE_OUTPUT, BY_ROWS, SIZES = 3, 0, 1  # split_item, group_type, group_list_type
COUNTS, PLACES, UNQUANTIZED = 1, 0, -1  # expert_tokens_num_type, row_idx_type, quant_mode


@dataclass(frozen=True, eq=False)
class PackedExperts:
    gate_up: Tensor  # [E, H, 2I]
    down: Tensor  # [E, I, H]


class RoutedExperts:
    """Serves what `kernels.supports_experts` accepts."""

    capturable = True

    def prepack(self, spec: ExpertsSpec, weights: ExpertWeights) -> PackedExperts:
        return PackedExperts(
            weights.gate_up.transpose(1, 2).contiguous(), weights.down.transpose(1, 2).contiguous()
        )

    def apply(self, x: Tensor, experts: Tensor, weights: Tensor, packed: PackedWeight) -> Tensor:
        count = len(packed.down)
        rows, places, sizes, _ = torch.ops.npu.npu_moe_init_routing_v2(
            x.contiguous(),
            experts.int(),
            active_num=experts.numel(),
            expert_num=count,
            expert_tokens_num_type=COUNTS,
            expert_tokens_num_flag=True,
            quant_mode=UNQUANTIZED,
            active_expert_range=[0, count],
            row_idx_type=PLACES,
        )
        hidden = torch.ops.npu.npu_swiglu(_product(rows, packed.gate_up, sizes))
        found = _product(hidden, packed.down, sizes)
        out: Tensor = torch.ops.npu.npu_moe_token_unpermute(found, places, weights.to(x.dtype))
        return out


def _product(x: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """x [M, K], sorted by expert, of which each has so many rows, by weight [E, K, N]."""
    out: Tensor = torch.ops.npu.npu_grouped_matmul(
        [x],
        [weight],
        group_list=sizes,
        split_item=ONE_OUTPUT,
        group_type=BY_ROWS,
        group_list_type=SIZES,
    )[0]
    return out
