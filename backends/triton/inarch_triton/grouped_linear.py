"""Linear layers of many experts in one launch, which may be captured.

Not measured on a device yet: the tiles are what fits everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.linear import PackedWeight
from inarch_triton.grouped_linear_kernel import grouped_linear_kernel
from inarch_triton.options import FUSED

COLUMNS, DEPTH = 128, 64
SIZES = (16, 32, 64, 128)  # rows of a tile
WIDE = 128  # rows from which a program has twice the warps


@dataclass(frozen=True)
class PackedGroup:
    """The weights as they came."""

    weight: Tensor  # [E, N, K]
    bias: Tensor | None  # [E, N]


class TritonGroupedLinear:
    """Serves what `kernels.supports_grouped_linear` accepts."""

    capturable = True

    def __init__(self, arch: str) -> None:
        self._arch = arch

    def prepack(self, spec: GroupedLinearSpec, weight: Tensor, bias: Tensor | None) -> PackedGroup:
        return PackedGroup(weight.contiguous(), bias)

    def apply(self, x: Tensor, packed: PackedWeight, groups: RowGroups) -> Tensor:
        experts, outputs, inputs = packed.weight.shape
        out = torch.empty((len(x), outputs), dtype=x.dtype, device=x.device)
        if len(x) == 0:
            return out
        rows = tile_rows(len(x), experts)
        # Of every expert that has rows one tile may be incomplete.
        tiles = len(x) // rows + min(len(x), experts)
        grouped_linear_kernel[(triton.cdiv(outputs, COLUMNS), tiles)](
            x.contiguous(), packed.weight, packed.bias, out, groups.ends, len(x), experts, outputs,
            inputs, **constants(rows, experts, inputs), **options(rows, self._arch),
        )  # fmt: skip
        return out


def tile_rows(rows: int, experts: int) -> int:
    """What an expert has on the average, or the next size."""
    each = rows // experts
    return next((size for size in SIZES if size >= each), SIZES[-1])


def constants(rows: int, experts: int, inputs: int) -> dict[str, Any]:
    return {
        "EXPERTS": triton.next_power_of_2(experts),
        "ROWS": rows,
        "COLUMNS": COLUMNS,
        "DEPTH": DEPTH,
        "EVEN": inputs % DEPTH == 0,
    }


def options(rows: int, arch: str) -> dict[str, Any]:
    stages = 3 if arch.startswith("sm_") else 2
    return {"num_warps": 8 if rows >= WIDE else 4, "num_stages": stages, **FUSED}
