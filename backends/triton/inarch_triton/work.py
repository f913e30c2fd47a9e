"""Cut a ragged batch into work items of the attention kernel, so that no processor idles.

A tile is a few consecutive query tokens of one sequence and the run of keys that they see. Long runs
are cut into chunks, one item each, and merged afterwards; how many items there may be depends on the
shape of the batch alone, so that a captured grid serves every batch of its shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from inarch.hal.attention import AttentionBatch
from inarch_triton.tiles import Tile

ITEM_FIELDS = 8  # row, first token, tokens, first position, begin, end, slot, -
JOB_FIELDS = 4  # first token, tokens, first slot, chunks
MOST_DRAFTED = 64  # bits of the integer that holds a query's ancestors


@dataclass(frozen=True)
class Shape:
    """Static facts that grids and buffers are made from."""

    tile_tokens: int
    keys: int  # a chunk begins at a multiple of it
    chunk: int  # least keys of a chunk
    extra: int  # items beyond one for each tile

    def tiles(self, tokens: int, seqs: int) -> int:
        """The most tiles of a batch: each sequence begins one, and fills it before the next."""
        return seqs + (tokens - seqs) // self.tile_tokens

    def items(self, tokens: int, seqs: int) -> int:
        return self.tiles(tokens, seqs) + self.extra

    def jobs(self, tokens: int, seqs: int) -> int:
        """The most tiles that are cut: each of them takes one extra item at least."""
        return min(self.tiles(tokens, seqs), self.extra)

    @property
    def slots(self) -> int:
        """Chunks that are put aside: a cut tile has one more than it takes extra items."""
        return 2 * self.extra


@dataclass(frozen=True)
class Work:
    """items int32 [N, ITEM_FIELDS] by falling length, empty ones last; jobs int32 [J, JOB_FIELDS].

    An item: query tokens [first token, + tokens) of the batch, the first of them at `first position`
    in its sequence (of a tree: the length of its prefix), attend to the keys [begin, end) of the
    pages in `row`. Its result is final if slot is -1. A job merges `chunks` slots.
    """

    items: np.ndarray
    jobs: np.ndarray


def spread(tiles: int, kv_heads: int, processors: int, waves: int) -> int:
    """How many extra items to allow, such that there are `waves` programs for each processor.

    Even when there are more tiles than that, some are kept for a sequence much longer than others.
    """
    wanted = -(-processors * waves // kv_heads)
    return max(wanted - tiles, -(-wanted // 4))


def most_extra(kv_heads: int, processors: int, waves: int) -> int:
    """What `spread` answers at most, whatever the batch."""
    return spread(0, kv_heads, processors, waves)


def work_shape(
    tile: Tile, group: int, kv_heads: int, tokens: int, seqs: int, processors: int
) -> Shape:
    """How batches of so many query tokens and sequences are cut for this tile."""
    tile_tokens = 1 if tokens == seqs else tile.rows // group
    uncut = Shape(tile_tokens, tile.keys, tile.chunk, extra=0)
    extra = spread(uncut.tiles(tokens, seqs), kv_heads, processors, tile.waves)
    return replace(uncut, extra=extra)


def cut(
    batch: AttentionBatch,
    chosen: np.ndarray,
    shape: Shape,
    window: int | None,
    sizes: tuple[int, int],
    *,
    trees: bool,
) -> Work:
    """Items and jobs for the sequences `chosen` (indices), in arrays of static `sizes`."""
    items = np.zeros((sizes[0], ITEM_FIELDS), np.int32)
    jobs = np.zeros((sizes[1], JOB_FIELDS), np.int32)
    if not len(chosen):
        return Work(items, jobs)
    starts = batch.q_indptr[chosen].astype(np.int64)
    q_lens = batch.q_indptr[chosen + 1] - starts
    kv_lens = batch.kv_lens[chosen].astype(np.int64)

    counts = -(-q_lens // shape.tile_tokens)
    owner = np.repeat(np.arange(len(chosen)), counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    offset = within * shape.tile_tokens
    tokens = np.minimum(q_lens[owner] - offset, shape.tile_tokens)
    prefix = kv_lens[owner] - q_lens[owner]
    position = prefix if trees else prefix + offset
    end = kv_lens[owner] if trees else position + tokens
    begin = np.zeros_like(end)
    if window is not None:
        begin = np.maximum(position - window + 1, 0) // shape.keys * shape.keys

    blocks = -(-(end - begin) // shape.keys)
    chunk_blocks = max(shape.chunk // shape.keys, -(-int(blocks.sum()) // max(shape.extra, 1)))
    size = -(-blocks // -(-blocks // chunk_blocks))  # even chunks
    chunks = -(-blocks // size)
    cut_tiles = chunks > 1
    slots = np.cumsum(np.where(cut_tiles, chunks, 0)) - chunks

    tile = np.repeat(np.arange(len(owner)), chunks)
    index = np.arange(len(tile)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    item_begin = begin[tile] + index * size[tile] * shape.keys
    item_end = np.minimum(item_begin + size[tile] * shape.keys, end[tile])
    fields = (
        batch.rows[chosen][owner][tile], (starts[owner] + offset)[tile], tokens[tile],
        position[tile], item_begin, item_end, np.where(cut_tiles[tile], slots[tile] + index, -1),
    )  # fmt: skip
    order = np.argsort(item_begin - item_end, kind="stable")
    for place, field in enumerate(fields):
        items[: len(tile), place] = field[order]
    merged = np.flatnonzero(cut_tiles)
    parts = ((starts[owner] + offset)[merged], tokens[merged], slots[merged], chunks[merged])
    for place, part in enumerate(parts):
        jobs[: len(merged), place] = part
    return Work(items, jobs)


def tree_bits(batch: AttentionBatch, chosen: np.ndarray, window: int | None) -> np.ndarray:
    """int64 [T, 2]: which drafted tokens of its sequence each query sees, and its position.

    Bit j stands for the j-th query token of the sequence: each of `chosen` has MOST_DRAFTED at most.
    """
    parents = batch.tree_parent
    assert parents is not None
    first = batch.q_indptr[chosen].astype(np.int64)
    q_lens = batch.q_indptr[chosen + 1] - first
    prefix = batch.kv_lens[chosen] - q_lens
    masks = np.zeros(len(parents), np.uint64)
    depth = np.zeros(len(parents), np.int64)
    result = np.zeros((len(parents), 2), np.int64)
    for i in range(int(q_lens.max(initial=0))):  # parents come before their children
        these = q_lens > i
        token, start = first[these] + i, first[these]
        parent, own = parents[token], np.uint64(1) << np.uint64(i)
        above = start + np.maximum(parent, 0)
        masks[token] = np.where(parent >= 0, masks[above] | own, own)
        depth[token] = np.where(parent >= 0, depth[above] + 1, 0)
        result[token, 1] = prefix[these] + depth[token]
    if window is not None and window < MOST_DRAFTED:
        for start, count in zip(first, q_lens, strict=True):
            part = slice(start, start + count)
            _forget(masks[part], depth[part], window)
    result[:, 0] = masks.view(np.int64)
    return result


def check_chains(batch: AttentionBatch, chosen: np.ndarray) -> None:
    """Raise ValueError if a sequence of `chosen`, too long for a mask, is more than a chain."""
    parents = batch.tree_parent
    assert parents is not None
    for s in chosen:
        own = parents[batch.q_indptr[s] : batch.q_indptr[s + 1]]
        if not np.array_equal(own, np.arange(-1, len(own) - 1)):
            raise ValueError(f"a tree of {len(own)} drafted tokens: the most is {MOST_DRAFTED}")


def _forget(masks: np.ndarray, depth: np.ndarray, window: int) -> None:
    """Take out of each mask the ancestors that lie `window` or more levels above."""
    far = depth[:, None] - depth >= window
    bits = np.uint64(1) << np.arange(len(masks), dtype=np.uint64)
    masks &= ~np.where(far, bits, np.uint64(0)).sum(1, dtype=np.uint64)
