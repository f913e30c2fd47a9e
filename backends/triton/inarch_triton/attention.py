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

import numpy as np
import torch
from torch import Tensor

from inarch.hal.attention import (
    AttentionBatch,
    AttentionResult,
    AttentionSpec,
    HostPlan,
    Rotation,
)
from inarch.hal.device import Device
from inarch.hal.executor import StepShape
from inarch.hal.kv import NULL_PAGE, KVState, KVStore
from inarch.hal.reference.grouping import query_slots
from inarch_triton.attention_launch import GLUON, Launch, Launcher
from inarch_triton.options import processors
from inarch_triton.rotary_write import OURS, rope_write
from inarch_triton.shared import LEAST_SEQS, SharedWork, most_slots, no_work, share, shared_shape
from inarch_triton.tile import Tile
from inarch_triton.tiles import (
    choose_tile,
    for_shared_prefixes,
    long_rows,
    padded,
    publishes,
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
        self._launcher = Launcher(spec, self._page_tokens, device.torch_device)
        self._table: Tensor | None = None
        self._parts: dict[tuple[Tile, int], tuple[Tensor, Tensor, Tensor]] = {}

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
        merging = shape.tile_tokens == 1 and not trees and publishes(self._device.info.arch)
        return padded(self._group) if merging else 0

    def _most_slots(self, tile: Tile) -> int:
        """Chunks that are put aside: a cut tile has one more than it takes extra items."""
        return 2 * most_extra(self._spec.kv_heads, self._processors, tile.waves)

    def kept_bytes(self, most: StepShape) -> int:
        words = padded(self._spec.value_dim) + 1  # of a row: its part and the sum; see _room
        return sum(
            slots * self._spec.kv_heads * (tile.rows * words + 1) * torch.float32.itemsize
            for tile, slots in self._rooms(most) - self._parts.keys()
        )

    def _rooms(self, most: StepShape) -> set[tuple[Tile, int]]:
        """The tiles of all batches up to `most`, with the slots of each."""
        crowds = {math.inf, *map(self._crowd, range(1, most.seqs + 1))}
        rows = {short_rows(self._group, queries, 1) for queries in range(1, FEW + 1)}
        tiles = {self._tile(each, crowd, long=False) for each in rows for crowd in crowds}
        tiles |= {self._shape(most.tokens, 1, math.inf, long=True)[0]}
        rooms = {(tile, self._most_slots(tile)) for tile in tiles}
        tile, shape = self._shared
        return rooms if self._spec.window else rooms | {(tile, most_slots(shape))}

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
            self._launcher.run(launch, layer, q, kv[layer], plan.table, sinks, out, sums)
        return AttentionResult(out, kv, sums)


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
