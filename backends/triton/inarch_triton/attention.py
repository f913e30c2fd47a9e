"""Paged attention: plans work on the host, keeps it at fixed addresses, runs one kernel for all cases.

Sequences with few query tokens (decodes, verification) and with many (extends, prefills) differ in
the shape of their tiles only; a mixed batch takes one launch for each of the two. One more may come
first, for what decodes share: see shared.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from inarch.hal.attention import (
    AttentionBatch,
    AttentionResult,
    AttentionSpec,
    HostPlan,
    Rotation,
)
from inarch.hal.device import Device
from inarch.hal.kv import NULL_PAGE, KVState, KVStore
from inarch.hal.reference.grouping import query_slots
from inarch_triton.attention_kernel import attention_kernel, merge_kernel
from inarch_triton.options import launch_options
from inarch_triton.rotary_write import OURS, rope_write
from inarch_triton.shared import LEAST_SEQS, SharedWork, most_slots, no_work, share, shared_shape
from inarch_triton.tiles import (
    Tile,
    choose_tile,
    for_shared_prefixes,
    kernel_options,
    long_rows,
    padded,
    short_rows,
)
from inarch_triton.work import (
    JOB_FIELDS,
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
            tensors += [launch.items, launch.jobs, launch.parts, launch.part_lse, launch.counters]
            tensors += [each for each in (launch.tree, launch.members) if each is not None]
        return tuple(tensor.data_ptr() for tensor in tensors)


@dataclass(frozen=True)
class Class:
    """Sequences that share a launch, and the most tokens and sequences that its buffers must hold."""

    chosen: np.ndarray
    tokens: int
    seqs: int


class TritonAttention:
    """Serves what `kernels.supports_attention` accepts, over the pages of a PagedKVStore.

    The grids and arrays of a batch with a bucket depend on the bucket only; for any other they are
    as large as its own work. What is put aside for chunks, and the copy of the page table, are at
    the same place for all.
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
        self._parts: dict[tuple[Tile, int], tuple[Tensor, Tensor, Tensor]] = {}
        self._descriptors: dict[tuple[int, Tile], tuple[Tensor, Pages]] = {}

    # ---- plan ----

    def plan(self, batch: AttentionBatch) -> HostPlan:
        arrays: dict[str, np.ndarray] = {"slots": query_slots(batch, self._page_tokens)}
        classes, trees = _classes(batch), batch.tree_parent is not None
        if trees:
            check_chains(batch, _members(classes, "long"))
            arrays["tree"] = tree_bits(batch, _members(classes, "short"), self._spec.window)
        launches: dict[str, tuple[Tile, Shape]] = {}
        shared = self._share(batch)
        if shared is not None:
            launches["shared"] = self._shared
            none = np.zeros((0, JOB_FIELDS), np.int32)
            arrays |= {"shared_items": shared.items, "shared_jobs": none, "members": shared.members}
        for name, it in classes.items():
            # As they come, batches differ too much to compile a tile for each number of decodes.
            crowd = math.inf if batch.bucket is None else self._crowd(it.seqs)
            tile, shape = self._shape(it.tokens, it.seqs, crowd, long=name == "long")
            sizes = shape.items(it.tokens, it.seqs), shape.jobs(it.tokens, it.seqs)
            short = name == "short"
            work = cut(
                batch, it.chosen, shape, self._spec.window, sizes, trees=trees and short,
                resumed=shared.resumed if shared and short else None,
            )  # fmt: skip
            jobs = work.jobs[:0] if self._merged_rows(shape, trees=trees) else work.jobs
            arrays |= {f"{name}_items": work.items, f"{name}_jobs": jobs}
            launches[name] = tile, shape
        table, updates = self._updates(batch)

        def bind(there: Mapping[str, Tensor]) -> Plan:
            if updates:
                table.view(-1).index_copy_(0, there["cells"], there["pages"])
            return Plan(there["slots"], table, self._launches(launches, there))

        return HostPlan(arrays, updates, bind)

    def _share(self, batch: AttentionBatch) -> SharedWork | None:
        """The work of a launch for what decodes share. A window leaves little of it, and it moves."""
        if batch.tree_parent is not None or self._spec.window is not None:
            return None
        _, shape = self._shared
        if batch.bucket is None:
            return share(batch, shape, self._group)
        # A captured launch is there for every batch of its bucket.
        if batch.bucket.seqs < LEAST_SEQS:
            return None
        return share(batch, shape, self._group) or no_work(batch, shape)

    @functools.cached_property
    def _shared(self) -> tuple[Tile, Shape]:
        spec, rows = self._spec, long_rows(self._group, self._spec)
        tile = for_shared_prefixes(self._tile(rows, long=True))
        return tile, shared_shape(tile, self._group, spec.kv_heads, self._processors)

    def _shape(self, tokens: int, seqs: int, crowd: float, *, long: bool) -> tuple[Tile, Shape]:
        spec, group = self._spec, self._group
        rows = long_rows(group, spec) if long else short_rows(group, tokens, seqs)
        tile = self._tile(rows, crowd, long=long, gluon=GLUON)
        return tile, work_shape(tile, group, spec.kv_heads, tokens, seqs, self._processors)

    def _tile(self, rows: int, crowd: float = 1.0, *, long: bool, gluon: bool = False) -> Tile:
        return self._choose(
            self._device.info.arch, self._spec, self._page_tokens, rows, long=long, gluon=gluon,
            stored=self._store.spec.dtype, crowd=crowd,
        )  # fmt: skip

    def _crowd(self, seqs: int) -> float:
        return seqs * self._spec.kv_heads / self._processors

    def _updates(self, batch: AttentionBatch) -> tuple[Tensor, dict[str, np.ndarray]]:
        """The mirror of the page table, and what has still to be written to it."""
        host, table = batch.page_table, self._table
        if table is None or table.shape != host.shape:
            self._table = table = self._device.upload(host)
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

    def _launches(
        self, launches: Mapping[str, tuple[Tile, Shape]], there: Mapping[str, Tensor]
    ) -> tuple[Launch, ...]:
        bound: dict[str, Launch] = {}
        for name, (tile, shape) in launches.items():
            short, shared = name == "short", name == "shared"
            bound[name] = Launch(
                tile,
                shape.tile_tokens,
                there[f"{name}_items"],
                there[f"{name}_jobs"],
                there.get("tree") if short else None,
                *self._room(tile, most_slots(shape) if shared else self._most_slots(tile)),
                0 if shared else self._merged_rows(shape, trees="tree" in there),
                members=there["members"] if shared else None,
                before=bound.get("shared") if short else None,
            )
        return tuple(bound.values())

    def _merged_rows(self, shape: Shape, *, trees: bool) -> int:
        """Decodes alone have few enough rows for one program to merge."""
        return padded(self._group) if shape.tile_tokens == 1 and not trees else 0

    def _most_slots(self, tile: Tile) -> int:
        return 2 * most_extra(self._spec.kv_heads, self._processors, tile.waves)

    def _room(self, tile: Tile, slots: int) -> tuple[Tensor, Tensor, Tensor]:
        if (tile, slots) not in self._parts:
            spec, place = self._spec, self._device.torch_device
            shape = (slots, spec.kv_heads, tile.rows)
            self._parts[tile, slots] = (
                torch.empty(*shape, padded(spec.value_dim), dtype=torch.float32, device=place),
                torch.empty(shape, dtype=torch.float32, device=place),
                torch.zeros(shape[:2], dtype=torch.int32, device=place),
            )
        return self._parts[tile, slots]

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
            pages = self._pages(layer, kv[layer], launch.tile)
            self._attend(launch, q, pages, plan.table, sinks, out, sums)
            if launch.jobs.numel():
                self._merge(launch, sinks, out, sums)
        return AttentionResult(out, kv, sums)

    def _pages(self, layer: int, kv: tuple[Tensor, Tensor], tile: Tile) -> Pages:
        """K and V of a layer as the tile reads them; descriptors take long to make, so they stay."""
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


def _classes(batch: AttentionBatch) -> dict[str, Class]:
    """The sequences with few and with many query tokens, without the padding among them."""
    bucket, trees = batch.bucket, batch.tree_parent is not None
    few = MOST_DRAFTED if trees else FEW
    q_lens = np.diff(batch.q_indptr)
    most = int(q_lens.max(initial=0)) if bucket is None else bucket.max_query
    if most > few and not trees:
        few = 1  # decodes alone then decide how the tiles of the short ones look
    padding = batch.page_table[batch.rows, 0] == NULL_PAGE
    real = (q_lens > 0) & (~padding | padding.all())  # steps of padding alone stand for others
    short, long = (np.flatnonzero(real & part) for part in (q_lens <= few, q_lens > few))
    if bucket is None:
        found = {"short": short, "long": long}
        return {
            name: Class(chosen, int(q_lens[chosen].sum()), len(chosen))
            for name, chosen in found.items()
            if len(chosen)
        }
    tokens, seqs = bucket.tokens, bucket.seqs
    if bucket.max_query <= few:
        return {"short": Class(short, tokens, seqs)}
    return {
        "short": Class(short, min(tokens, few * seqs), seqs),
        "long": Class(long, tokens, min(seqs, tokens // (few + 1))),
    }


def _members(classes: Mapping[str, Class], name: str) -> np.ndarray:
    return classes[name].chosen if name in classes else np.empty(0, np.int64)


def processors(device: torch.device) -> int:
    """Multiprocessors, or compute units; some where Triton's interpreter plays the device."""
    if device.type == "cpu":
        return 8
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


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
        return spec.scale * LOG2_E, 0.0
    return spec.softcap * LOG2_E, 2 * LOG2_E * spec.scale / spec.softcap


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
        "BOUNCE": tile.bounce and not INTERPRETED,
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
