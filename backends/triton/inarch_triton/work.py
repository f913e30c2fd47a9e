"""Cut a ragged batch into work items of the attention kernel, so that no processor idles.

A tile is a few consecutive query tokens of one sequence and the run of keys that they see. Long runs
are cut into chunks, one item each, and merged afterwards; how many items there may be depends on the
shape of the batch alone, so that a captured grid serves every batch of its shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from inarch.hal.attention import AttentionBatch
from inarch_triton.tile import Tile

# Row, first token, tokens, first position, begin, end, slot; to take up: first slot, slots, row;
# of the tile's chunks: first slot, slots.
ITEM_FIELDS = 12
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


@dataclass(frozen=True)
class Work:
    """items int32 [N, ITEM_FIELDS] by falling length, empty ones last; jobs int32 [J, JOB_FIELDS].

    An item: query tokens [first token, + tokens) of the batch, the first of them at `first position`
    in its sequence (of a tree: the length of its prefix), attend to the keys [begin, end) of the
    pages in `row`. Its result is final if slot is -1. A job merges `chunks` slots. The last fields
    say what was attended to before: so many slots of another launch, from which row of them on.
    """

    items: np.ndarray
    jobs: np.ndarray


@dataclass(frozen=True)
class Chunks:
    """Runs of keys, cut. All int64 [chunks], but `counts` [runs]: the chunks of each."""

    run: np.ndarray  # to which it belongs
    index: np.ndarray  # within it
    begin: np.ndarray
    end: np.ndarray
    counts: np.ndarray

    @property
    def by_length(self) -> np.ndarray:
        """The longest first, so that none is left for the end."""
        return np.argsort(self.begin - self.end, kind="stable")


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
    resumed: np.ndarray | None = None,
) -> Work:
    """Items and jobs for the sequences `chosen` (indices), in arrays of static `sizes`.

    resumed int64 [S, 4], of all sequences: of a decode, how many of its first keys are in the slots
    of another launch; then the first of these, how many they are, and the row within them.
    """
    if not len(chosen):
        nothing = np.zeros((sizes[0], ITEM_FIELDS), np.int32)
        return Work(nothing, np.zeros((sizes[1], JOB_FIELDS), np.int32))
    starts = batch.q_indptr[chosen].astype(np.int64)
    q_lens = batch.q_indptr[chosen + 1] - starts
    kv_lens = batch.kv_lens[chosen].astype(np.int64)
    before = np.zeros((len(chosen), 4), np.int64) if resumed is None else resumed[chosen]

    counts = -(-q_lens // shape.tile_tokens)
    owner = np.repeat(np.arange(len(chosen)), counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    offset = within * shape.tile_tokens
    tokens = np.minimum(q_lens[owner] - offset, shape.tile_tokens)
    prefix = kv_lens[owner] - q_lens[owner]
    position = prefix if trees else prefix + offset
    end = kv_lens[owner] if trees else position + tokens
    begin = before[owner, 0]
    if window is not None:
        begin = np.maximum(position - window + 1, 0) // shape.keys * shape.keys

    chunks = chop(begin, end, shape)
    run, first = chunks.run, starts[owner] + offset
    is_cut = chunks.counts > 1
    slots = np.cumsum(np.where(is_cut, chunks.counts, 0)) - chunks.counts
    # What was attended to before is taken up once: by the first chunk.
    taken_up = np.where(chunks.index[:, None] == 0, before[owner[run], 1:], 0)
    items = filled(sizes[0], ITEM_FIELDS, (
        batch.rows[chosen][owner][run], first[run], tokens[run], position[run],
        chunks.begin, chunks.end, np.where(is_cut[run], slots[run] + chunks.index, -1),
        *taken_up.T, slots[run], chunks.counts[run],
    ), chunks.by_length)  # fmt: skip
    merged = np.flatnonzero(is_cut)
    jobs = filled(sizes[1], JOB_FIELDS, (first, tokens, slots, chunks.counts), merged)
    return Work(items, jobs)


def chop(begin: np.ndarray, end: np.ndarray, shape: Shape) -> Chunks:
    """Cut runs of keys into even chunks: in all, at most one for each run and `extra` more."""
    blocks = -(-(end - begin) // shape.keys)
    chunk_blocks = max(shape.chunk // shape.keys, -(-int(blocks.sum()) // max(shape.extra, 1)))
    size = -(-blocks // -(-blocks // chunk_blocks))
    counts = -(-blocks // size)
    run = np.repeat(np.arange(len(begin)), counts)
    index = np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts)
    chunk_begin = begin[run] + index * size[run] * shape.keys
    chunk_end = np.minimum(chunk_begin + size[run] * shape.keys, end[run])
    return Chunks(run, index, chunk_begin, chunk_end, counts)


def filled(
    size: int, fields: int, columns: tuple[np.ndarray, ...], order: np.ndarray
) -> np.ndarray:
    """int32 [size, fields]: the columns' entries `order`, and 0 behind them."""
    rows = np.zeros((size, fields), np.int32)
    for place, column in enumerate(columns):
        rows[: len(order), place] = column[order]
    return rows


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
