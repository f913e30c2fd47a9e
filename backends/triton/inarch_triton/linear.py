"""Linear layers: a kernel of our own for few tokens, torch's product (cuBLAS, hipBLAS) for many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from inarch.hal.linear import LinearSpec, PackedWeight
from inarch_triton.linear_kernel import linear_kernel
from inarch_triton.linear_tiles import LinearTile, linear_tiles
from inarch_triton.options import FUSED, pdl, processors


@dataclass(frozen=True)
class PackedLinear:
    """A weight as it came, and how it is read. Only one stream at a time may apply it."""

    weight: Tensor  # [N, K]
    bias: Tensor | None  # [N]
    tiles: tuple[LinearTile, ...]
    counters: Tensor | None  # int32, one for each tile of outputs; zero between launches


class TritonLinear:
    """Serves what `kernels.supports_linear` accepts.

    Within a tile's number of tokens, a row of the result depends on its own row of x alone.
    """

    def __init__(self, arch: str) -> None:
        self._arch, self._pdl = arch, pdl(arch)

    def prepack(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> PackedLinear:
        tiles: tuple[LinearTile, ...] = ()
        if weight.is_contiguous() and weight.data_ptr() % 16 == 0:
            count = processors(weight.device)
            tiles = linear_tiles(self._arch, count, spec.outputs, spec.inputs)
        needed = [triton.cdiv(spec.outputs, tile.rows) for tile in tiles if tile.splits > 1]
        counters = None
        if needed:
            counters = torch.zeros(max(needed), dtype=torch.int32, device=weight.device)
        return PackedLinear(weight, bias, tiles, counters)

    def apply(self, x: Tensor, packed: PackedWeight) -> Tensor:
        for tile in packed.tiles:
            if 0 < len(x) <= tile.tokens:
                return multiply(x, packed, tile, pdl=self._pdl)
        return F.linear(x, packed.weight, packed.bias)


def multiply(x: Tensor, packed: PackedLinear, tile: LinearTile, *, pdl: bool) -> Tensor:
    """x [T, K] @ weight.T + bias [T, N] by the kernel, for T <= tile.tokens."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    outputs, inputs = packed.weight.shape
    blocks = triton.cdiv(triton.cdiv(inputs, tile.depth), tile.splits)
    programs = triton.cdiv(outputs, tile.rows) * tile.splits
    out = torch.empty((len(x), outputs), dtype=x.dtype, device=x.device)
    parts = None
    if tile.splits > 1:
        sums = (programs, tile.rows, tile.tokens)
        parts = torch.empty(sums, dtype=torch.float32, device=x.device)
    linear_kernel[(programs,)](
        x, packed.weight, packed.bias, out, parts, packed.counters, len(x), x.stride(0), outputs,
        inputs, blocks, **linear_constants(tile, inputs, pdl=pdl), **linear_options(tile, pdl=pdl),
    )  # fmt: skip
    return out


def linear_constants(tile: LinearTile, inputs: int, *, pdl: bool) -> dict[str, Any]:
    return {
        "ROWS": tile.rows,
        "DEPTH": tile.depth,
        "TOKENS": tile.tokens,
        "SPLITS": tile.splits,
        "EVEN": inputs % (tile.depth * tile.splits) == 0,
        "PDL": pdl,
    }


def linear_options(tile: LinearTile, *, pdl: bool) -> dict[str, Any]:
    early = {"launch_pdl": True} if pdl else {}
    return {"num_warps": tile.warps, "num_stages": tile.stages, **early, **FUSED}
