"""How `TritonAttention` runs the kernel for Hopper. Imports Gluon, which not every Triton has."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from inarch.hal.attention import AttentionSpec
from inarch_triton.hopper_kernel import BOX, SWIZZLED, hopper_attention_kernel
from inarch_triton.options import FUSED
from inarch_triton.tile import Tile


def boxes(slots: Tensor) -> TensorDescriptor:
    """Of all slots of a layer [slots, G * D], read in boxes of BOX keys and features."""
    return TensorDescriptor.from_tensor(slots, [BOX.value, BOX.value], SWIZZLED.value)


def hopper_constants(
    spec: AttentionSpec, tile: Tile, page_tokens: int, *, lse: bool
) -> dict[str, Any]:
    return {
        "HEADS": spec.kv_heads,
        "GROUP": spec.q_heads // spec.kv_heads,
        "DIM": spec.key_dim,
        "ROWS": tile.rows,
        "KEYS": tile.keys,
        "STAGES": tile.stages,
        "PAGE": page_tokens,
        "LSE": lse,
    }


def attend(
    spec: AttentionSpec,
    tile: Tile,
    page_tokens: int,
    q: Tensor,
    pages: tuple[TensorDescriptor, TensorDescriptor],
    table: Tensor,
    items: Tensor,
    out: Tensor,
    lse: Tensor | None,
    parts: tuple[Tensor, Tensor],
    scale: float,
) -> None:
    """Arguments as those of `attention_kernel`; parts: with the sums of them."""
    hopper_attention_kernel[(spec.kv_heads, len(items))](
        q, *pages, table, items, out, lse, *parts,
        q.stride(0), q.stride(1), table.stride(0), scale,
        **hopper_constants(spec, tile, page_tokens, lse=lse is not None),
        num_warps=tile.warps, **FUSED,
    )  # fmt: skip
