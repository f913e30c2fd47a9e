"""Paged attention: plans work on the host, keeps it at fixed addresses, runs one kernel for all cases.

Sequences with few query tokens (decodes, verification) and with many (extends, prefills) differ in
the shape of their tiles only; a mixed batch takes one launch for each of the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from inarch.hal.attention import AttentionBatch, AttentionResult, AttentionSpec, Rotation
from inarch.hal.device import Device
from inarch.hal.kv import NULL_PAGE, KVState, KVStore
from inarch.hal.reference.grouping import query_slots
from inarch_triton.attention_kernel import attention_kernel, merge_kernel
from inarch_triton.options import launch_options
from inarch_triton.packing import Packed, pack
from inarch_triton.rotary_write import OURS, rope_write
from inarch_triton.tiles import Tile, choose_tile, kernel_options, long_rows, padded, short_rows
from inarch_triton.work import (
    MOST_DRAFTED,
    Shape,
    check_chains,
    cut,
    most_extra,
    tree_bits,
    work_shape,
)

FEW = 16  # query tokens of a sequence that still counts as short
LOG2_E = 1.4426950408889634
MERGED = 16  # chunks that a merging program loads at once
INTERPRETED = triton.knobs.runtime.interpret


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


@dataclass(frozen=True)
class Plan:
    slots: Tensor  # int64 [T]
    table: Tensor  # int32 [rows, pages], the mirror of the core's
    launches: tuple[Launch, ...]

    @property
    def addresses(self) -> tuple[int, ...]:
        """Of all that a captured graph has baked in."""
        tensors = [self.slots, self.table]
        for launch in self.launches:
            tensors += [launch.items, launch.jobs, launch.parts, launch.part_lse]
            tensors += [] if launch.tree is None else [launch.tree]
        return tuple(tensor.data_ptr() for tensor in tensors)


Tiles = list[tuple[str, Tile, Shape]]  # "short", "long" -> how they are cut


class TritonAttention:
    """Serves what `kernels.supports_attention` accepts, over the pages of a PagedKVStore.

    A batch whose sequences are all short gets a plan of fixed addresses, one for each number of
    tokens and sequences, and may be captured: its grid and buffers depend on these numbers only.
    `choose` is `choose_tile`, or what a benchmark has instead.
    """

    capturable = True

    def __init__(
        self,
        spec: AttentionSpec,
        store: KVStore,
        device: Device,
        *,
        choose: Callable[..., Tile] = choose_tile,
    ) -> None:
        self._spec, self._store, self._device, self._choose = spec, store, device, choose
        self._page_tokens = store.layout.page_tokens
        self._group = spec.q_heads // spec.kv_heads
        self._processors = processors(device.torch_device)
        self._options = launch_options(device.torch_device)
        self._table: Tensor | None = None
        self._parts: dict[Tile, tuple[Tensor, Tensor]] = {}
        self._fixed: dict[tuple[int, int, bool], tuple[Tensor, Plan]] = {}

    # ---- plan ----

    def plan(self, batch: AttentionBatch) -> Plan:
        classes = _classes(batch)
        arrays: dict[str, np.ndarray] = {"slots": query_slots(batch, self._page_tokens)}
        if batch.tree_parent is not None:
            check_chains(batch, classes["long"])
            arrays["tree"] = tree_bits(batch, classes["short"], self._spec.window)
        tiles: Tiles = []
        for name, chosen in classes.items():
            if not len(chosen):
                continue
            tokens, seqs = len(arrays["slots"]), len(batch.kv_lens)
            if len(classes["long"]):  # else padding counts, so that the shape is the batch's
                tokens, seqs = int(np.diff(batch.q_indptr)[chosen].sum()), len(chosen)
            tile, shape = self._shape(tokens, seqs, long=name == "long")
            trees = "tree" in arrays and name == "short"
            sizes = shape.items(tokens, seqs), shape.jobs(tokens, seqs)
            work = cut(batch, chosen, shape, self._spec.window, sizes, trees=trees)
            arrays |= {f"{name}_items": work.items, f"{name}_jobs": work.jobs}
            tiles.append((name, tile, shape))
        return self._upload(batch, arrays, tiles)

    def _shape(self, tokens: int, seqs: int, *, long: bool) -> tuple[Tile, Shape]:
        spec, group = self._spec, self._group
        rows = long_rows(group, spec) if long else short_rows(group, tokens, seqs)
        stored = self._store.spec.dtype
        tile = self._choose(
            self._device.info.arch, spec, self._page_tokens, rows, long=long, stored=stored
        )
        return tile, work_shape(tile, group, spec.kv_heads, tokens, seqs, self._processors)

    def _upload(self, batch: AttentionBatch, arrays: dict[str, np.ndarray], tiles: Tiles) -> Plan:
        """Bring everything over in one copy, with the changes of the page table at the end."""
        table, updates = self._updates(batch)
        packed = pack({**arrays, **updates})
        there = self._device.upload(packed.host)
        if updates:
            cells, pages = (packed.view(there, name) for name in updates)
            table.view(-1).index_copy_(0, cells, pages)
        if any(name == "long" for name, *_ in tiles):
            return self._plan(packed, there, table, tiles)
        key = (len(arrays["slots"]), len(batch.kv_lens), "tree" in arrays)
        size = packed.places["cells"][0] if updates else len(there)
        if key not in self._fixed:
            buffer = torch.empty_like(there[:size])
            self._fixed[key] = buffer, self._plan(packed, buffer, table, tiles)
        buffer, plan = self._fixed[key]
        buffer.copy_(there[:size])
        return plan

    def _updates(self, batch: AttentionBatch) -> tuple[Tensor, dict[str, np.ndarray]]:
        """The mirror of the page table, and what has still to be written to it."""
        host, table = batch.page_table, self._table
        if table is None or table.shape != host.shape:
            self._table = table = self._device.upload(host)
            self._fixed.clear()  # its plans name the former table
            return table, {}
        if batch.page_updates is None:
            table.copy_(self._device.upload(host))
            return table, {}
        rows, columns, _ = batch.page_updates
        if not len(rows):
            return table, {}
        # A cell may be named twice: what it holds now is right both times.
        cells = rows.astype(np.int64) * host.shape[1] + columns
        return table, {"cells": cells, "pages": host[rows, columns]}

    def _plan(self, packed: Packed, there: Tensor, table: Tensor, tiles: Tiles) -> Plan:
        tree = packed.view(there, "tree") if "tree" in packed.places else None
        launches = tuple(
            Launch(
                tile,
                shape.tile_tokens,
                packed.view(there, f"{name}_items"),
                packed.view(there, f"{name}_jobs"),
                tree if name == "short" else None,
                *self._room(tile),
            )
            for name, tile, shape in tiles
        )
        return Plan(packed.view(there, "slots"), table, launches)

    def _room(self, tile: Tile) -> tuple[Tensor, Tensor]:
        if tile not in self._parts:
            spec, place = self._spec, self._device.torch_device
            slots = 2 * most_extra(spec.kv_heads, self._processors, tile.waves)
            shape = (slots, spec.kv_heads, tile.rows)
            self._parts[tile] = (
                torch.empty(*shape, padded(spec.value_dim), dtype=torch.float32, device=place),
                torch.empty(shape, dtype=torch.float32, device=place),
            )
        return self._parts[tile]

    # ---- run ----

    def run(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kv: KVState,
        plan: Plan,
        *,
        rotation: Rotation | None = None,
        sinks: Tensor | None = None,
        lse: bool = False,
    ) -> AttentionResult:
        if rotation is not None and rotation.turn in OURS:
            q = rope_write(q, k, v, rotation, plan.slots, kv[layer])
        else:
            q, k = (q, k) if rotation is None else rotation(q, k)
            kv = self._store.write(kv, layer, plan.slots, k, v)
        q = q if q.stride(2) == 1 else q.contiguous()
        out = q.new_empty((*q.shape[:2], self._spec.value_dim))
        sums = q.new_empty(q.shape[:2], dtype=torch.float32) if lse else None
        for launch in plan.launches:
            self._attend(launch, q, kv[layer], plan.table, sinks, out, sums)
            if launch.jobs.numel():
                self._merge(launch, sinks, out, sums)
        return AttentionResult(out, kv, sums)

    def _attend(
        self,
        launch: Launch,
        q: Tensor,
        pages: tuple[Tensor, Tensor],
        table: Tensor,
        sinks: Tensor | None,
        out: Tensor,
        lse: Tensor | None,
    ) -> None:
        spec, tile = self._spec, launch.tile
        k, v = (descriptor(x, tile.keys) for x in pages) if tile.descriptors else pages
        attention_kernel[(spec.kv_heads, len(launch.items))](
            q, k, v, table, launch.items, launch.tree, sinks, out, lse,
            launch.parts, launch.part_lse, q.stride(0), q.stride(1), table.stride(0),
            *scales(spec),
            **attention_constants(
                spec, tile, self._page_tokens,
                tree=launch.tree is not None, sinks=sinks is not None, lse=lse is not None,
            ),
            **kernel_options(tile), **self._options,
        )  # fmt: skip

    def _merge(self, launch: Launch, sinks: Tensor | None, out: Tensor, lse: Tensor | None) -> None:
        rows = launch.tile_tokens * self._group
        merge_kernel[(rows, self._spec.kv_heads, len(launch.jobs))](
            launch.parts, launch.part_lse, launch.jobs, sinks, out, lse,
            **merge_constants(
                self._spec, launch.tile, sinks=sinks is not None, lse=lse is not None
            ),
            num_warps=4, **self._options,
        )  # fmt: skip


def _classes(batch: AttentionBatch) -> dict[str, np.ndarray]:
    """The sequences with few and with many query tokens."""
    q_lens = np.diff(batch.q_indptr)
    few = q_lens <= (FEW if batch.tree_parent is None else MOST_DRAFTED)
    # The padding of a batch may end in one long sequence, which must not make it another batch: it
    # is left out, and what comes out for its tokens is anything. Batches of padding alone measure.
    padding = batch.page_table[batch.rows, 0] == NULL_PAGE
    idle = ~few & padding if not padding.all() else np.zeros_like(few)
    return {"short": np.flatnonzero(few), "long": np.flatnonzero(~few & ~idle)}


def processors(device: torch.device) -> int:
    """Multiprocessors, or compute units; few where Triton's interpreter plays the device."""
    if device.type == "cpu":
        return 2
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def descriptor(pages: Tensor, keys: int) -> TensorDescriptor:
    """Of all slots of a layer as a matrix [slots, G * D], read in tiles of one head's `keys` keys."""
    slots = pages.flatten(0, 1).flatten(1)
    return TensorDescriptor.from_tensor(slots, [keys, pages.shape[-1]])


def scales(spec: AttentionSpec) -> tuple[float, float]:
    """The kernel's `scale` and `cap`: it computes powers of two, and tanh from one of them."""
    if spec.softcap is None:
        return spec.scale * LOG2_E, 0.0
    return spec.softcap * LOG2_E, 2 * LOG2_E * spec.scale / spec.softcap


def attention_constants(
    spec: AttentionSpec, tile: Tile, page_tokens: int, *, tree: bool, sinks: bool, lse: bool
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
        "BOUNCE": tile.bounce and not INTERPRETED,
        "WINDOW": spec.window or 0,
        "SOFTCAP": spec.softcap is not None,
        "SINKS": sinks,
        "LSE": lse,
        "TREE": tree,
        "UPCAST": INTERPRETED and spec.dtype == torch.bfloat16,
        "EXACT": spec.dtype == torch.float32,
    }


def merge_constants(spec: AttentionSpec, tile: Tile, *, sinks: bool, lse: bool) -> dict[str, Any]:
    return {
        "HEADS": spec.kv_heads,
        "GROUP": spec.q_heads // spec.kv_heads,
        "VALUE_DIM": spec.value_dim,
        "BLOCK_VALUE": padded(spec.value_dim),
        "ROWS": tile.rows,
        "CHUNKS": MERGED,
        "SINKS": sinks,
        "LSE": lse,
    }
