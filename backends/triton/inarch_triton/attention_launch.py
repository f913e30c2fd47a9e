"""How planned work becomes launches of the attention kernels: arguments, constants, descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from inarch.hal.attention import AttentionSpec
from inarch_triton.attention_kernel import attention_kernel, merge_kernel
from inarch_triton.options import LOG2_E, launch_options
from inarch_triton.tile import Tile
from inarch_triton.tiles import padded

MERGED = 32  # rows of chunks that a merging program loads at once
INTERPRETED = triton.knobs.runtime.interpret
# Gluon is experimental: it is imported where it is used, and may be missing elsewhere.
TRITON = tuple(int(part) for part in triton.__version__.split(".")[:2])
GLUON = TRITON >= (3, 6) and not INTERPRETED

Pages = tuple[Any, Any]  # K and V of a layer: tensors, or descriptors of one sort


@dataclass(frozen=True)
class Launch:
    """One launch of the kernel: its work (see work.py) and room for the chunks of cut tiles."""

    tile: Tile
    tile_tokens: int
    items: Tensor
    jobs: Tensor
    tree: Tensor | None  # int64 [T, 2]: ancestors, position
    parts: Tensor  # float32 [slots, G, rows, padded value_dim]
    part_lse: Tensor  # float32 [slots, G, rows]
    counters: Tensor  # int32 [slots, G], zero between launches
    merged_rows: int  # of tiles whose last program merges their chunks; 0: merge_kernel does
    members: Tensor | None = None  # int32: the query tokens that items of shared prefixes name
    before: Launch | None = None  # the one whose parts the items take up


class Launcher:
    """Launches work over the pages of one store, for layers that share a spec."""

    def __init__(self, spec: AttentionSpec, page_tokens: int, device: torch.device) -> None:
        self._spec, self._page_tokens = spec, page_tokens
        self._options = launch_options(device)
        self._descriptors: dict[tuple[int, Tile], tuple[Tensor, Pages]] = {}

    def run(
        self,
        launch: Launch,
        layer: int,
        q: Tensor,
        kv: tuple[Tensor, Tensor],
        table: Tensor,
        sinks: Tensor | None,
        out: Tensor,
        lse: Tensor | None,
    ) -> None:
        """Attend with q [T, H, D] over the layer's K and V, to out [T, H, value_dim] and lse [T, H]."""
        pages = self._pages(layer, kv, launch.tile)
        self._attend(launch, q, pages, table, sinks, out, lse)
        if launch.jobs.numel():
            self._merge(launch, sinks, out, lse)

    def _pages(self, layer: int, kv: tuple[Tensor, Tensor], tile: Tile) -> Pages:
        """K and V of a layer as the tile reads them; descriptors take long to make, so they stay."""
        if tile.pairs:
            return kv[0].view(torch.int16), kv[1].view(torch.int16)
        if not tile.descriptors:
            return kv
        k_pages, pages = self._descriptors.get((layer, tile), (None, None))
        if pages is None or k_pages is not kv[0]:
            pages = descriptor(kv[0], tile), descriptor(kv[1], tile)
            self._descriptors[layer, tile] = kv[0], pages
        return pages

    def _attend(
        self,
        launch: Launch,
        q: Tensor,
        pages: Pages,
        table: Tensor,
        sinks: Tensor | None,
        out: Tensor,
        lse: Tensor | None,
    ) -> None:
        spec, tile, before = self._spec, launch.tile, launch.before
        if tile.specialized:
            from inarch_triton import hopper  # see GLUON

            parts = launch.parts, launch.part_lse
            hopper.attend(
                spec, tile, self._page_tokens, q, pages, table, launch.items, out, lse, parts,
                scales(spec)[0],
            )  # fmt: skip
            return
        attention_kernel[(spec.kv_heads, len(launch.items))](
            q, *pages, table, launch.items, launch.tree, launch.members, sinks, out, lse,
            launch.parts, launch.part_lse, launch.counters,
            before and before.parts, before and before.part_lse,
            q.stride(0), q.stride(1), table.stride(0), *scales(spec),
            **attention_constants(
                spec, tile, self._page_tokens,
                tree=launch.tree is not None, sinks=sinks is not None, lse=lse is not None,
                gathered=launch.members is not None, shared_rows=before.tile.rows if before else 0,
                merged_rows=launch.merged_rows,
            ),
            **tile.options(), **self._options,
        )  # fmt: skip

    def _merge(self, launch: Launch, sinks: Tensor | None, out: Tensor, lse: Tensor | None) -> None:
        rows = launch.tile_tokens * (self._spec.q_heads // self._spec.kv_heads)
        merge_kernel[(rows, self._spec.kv_heads, len(launch.jobs))](
            launch.parts, launch.part_lse, launch.jobs, sinks, out, lse,
            **merge_constants(
                self._spec, launch.tile, sinks=sinks is not None, lse=lse is not None
            ),
            num_warps=4, **self._options,
        )  # fmt: skip


def descriptor(pages: Tensor, tile: Tile) -> Any:
    """Of all slots of a layer as a matrix [slots, G * D], read in tiles of one head's keys."""
    slots = pages.flatten(0, 1).flatten(1)
    if tile.specialized:
        from inarch_triton import hopper  # see GLUON

        return hopper.boxes(slots)
    return TensorDescriptor.from_tensor(slots, [tile.keys, pages.shape[-1]])


def scales(spec: AttentionSpec) -> tuple[float, float]:
    """The kernel's `scale` and `cap`: it computes powers of two, and tanh from one of them."""
    if spec.softcap is None:
        return spec.scale * LOG2_E.value, 0.0
    return spec.softcap * LOG2_E.value, 2 * LOG2_E.value * spec.scale / spec.softcap


def attention_constants(
    spec: AttentionSpec,
    tile: Tile,
    page_tokens: int,
    *,
    tree: bool,
    sinks: bool,
    lse: bool,
    gathered: bool = False,
    shared_rows: int = 0,
    merged_rows: int = 0,
) -> dict[str, Any]:
    return {
        "HEADS": spec.kv_heads,
        "GROUP": spec.q_heads // spec.kv_heads,
        "KEY_DIM": spec.key_dim,
        "VALUE_DIM": spec.value_dim,
        "BLOCK_KEY": padded(spec.key_dim),
        "BLOCK_VALUE": padded(spec.value_dim),
        "ROWS": tile.rows,
        "KEYS": tile.keys,
        "PAGE": page_tokens,
        "DESCRIPTORS": tile.descriptors,
        "PAIRS": tile.pairs,
        "WINDOW": spec.window or 0,
        "SOFTCAP": spec.softcap is not None,
        "SINKS": sinks,
        "LSE": lse,
        "TREE": tree,
        "GATHERED": gathered,
        "SHARED_ROWS": shared_rows,
        "MERGED_ROWS": merged_rows,
        "CHUNKS": max(MERGED // max(merged_rows, 1), 1),
        "UPCAST": INTERPRETED and spec.dtype == torch.bfloat16,
        "EXACT": spec.dtype == torch.float32,
        "INTERPRETED": INTERPRETED,
    }


def merge_constants(spec: AttentionSpec, tile: Tile, *, sinks: bool, lse: bool) -> dict[str, Any]:
    return {
        "HEADS": spec.kv_heads,
        "GROUP": spec.q_heads // spec.kv_heads,
        "VALUE_DIM": spec.value_dim,
        "BLOCK_VALUE": padded(spec.value_dim),
        "ROWS": tile.rows,
        "CHUNKS": MERGED // 2,
        "SINKS": sinks,
        "LSE": lse,
    }
