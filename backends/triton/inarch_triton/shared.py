"""Attend to a prefix that many decodes share once for all of them.

Their query tokens fill the tiles of a launch of its own, over the shared keys alone. What comes of it
is put aside, and the items of each sequence's other keys take it up (Juravsky et al., 2024, "Hydragen",
arXiv:2402.05099). The work is cut on the host, into arrays whose sizes depend on the tile alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inarch.hal.attention import AttentionBatch, SharedPrefixes
from inarch_triton.tile import Tile
from inarch_triton.work import ITEM_FIELDS, Shape, chop, filled, most_extra

MOST_TILES = 64  # of one launch: those that save most
LEAST_ROOM = (
    4  # tokens of a tile; where it holds fewer, the keys are read nearly as often as before
)
# Reading a key of all heads takes about a nanosecond; another launch, and what it puts aside, some
# microseconds.
LEAST_SAVED_BY_GROUP = 2048  # keys
LEAST_SAVED = 16_384  # keys, by a step
LEAST_SEQS = (
    32  # of a captured shape that has the launch, which costs a little if nothing is shared
)


@dataclass(frozen=True)
class SharedWork:
    """items as in Work, whose first token is an index to `members`, and all of which have a slot.

    members int32 [MOST_TILES, tokens of a tile]: query tokens of the batch. resumed int64 [S, 4]: see
    `work.cut`.
    """

    items: np.ndarray
    members: np.ndarray
    resumed: np.ndarray


def shared_shape(tile: Tile, group: int, kv_heads: int, processors: int) -> Shape:
    """How shared prefixes are cut for this tile."""
    extra = most_extra(kv_heads, processors, tile.waves)
    return Shape(tile.rows // group, tile.keys, tile.chunk, extra)


def most_slots(shape: Shape) -> int:
    """Items of a launch, each of which has a slot."""
    return MOST_TILES + shape.extra


def share(batch: AttentionBatch, shape: Shape, group: int) -> SharedWork | None:
    """The work for the prefixes that the sequences of `batch` share; None if it would not pay."""
    prefixes = batch.shared
    if prefixes is None or shape.tile_tokens < LEAST_ROOM:
        return None
    sizes = np.diff(prefixes.indptr)
    owner, offset, count = _tiles(sizes, _worthwhile(sizes, prefixes), shape.tile_tokens)
    if not len(owner):
        return None
    place = np.arange(shape.tile_tokens)
    tile, within = np.nonzero(place < count[:, None])
    sequences = prefixes.sequences[prefixes.indptr[owner][tile] + offset[tile] + within]
    members = np.zeros((MOST_TILES, shape.tile_tokens), np.int32)
    members[tile, within] = batch.q_indptr[sequences]

    end = prefixes.tokens[owner].astype(np.int64)
    chunks = chop(np.zeros_like(end), end, shape)
    slots = np.cumsum(chunks.counts) - chunks.counts
    run = chunks.run
    row = batch.rows[prefixes.sequences[prefixes.indptr[owner]]]
    # Every query comes behind the shared keys: a first position of `end` hides none of them.
    items = filled(most_slots(shape), ITEM_FIELDS, (
        row[run], run * shape.tile_tokens, count[run], end[run], chunks.begin, chunks.end,
        slots[run] + chunks.index,
    ), chunks.by_length)  # fmt: skip
    resumed = np.zeros((len(batch.kv_lens), 4), np.int64)
    resumed[sequences] = np.stack(
        (end[tile], slots[tile], chunks.counts[tile], within * group), axis=1
    )
    return SharedWork(items, members, resumed)


def no_work(batch: AttentionBatch, shape: Shape) -> SharedWork:
    """For a batch that shares nothing, where the launch is captured."""
    return SharedWork(
        np.zeros((most_slots(shape), ITEM_FIELDS), np.int32),
        np.zeros((MOST_TILES, shape.tile_tokens), np.int32),
        np.zeros((len(batch.kv_lens), 4), np.int64),
    )


def _worthwhile(sizes: np.ndarray, prefixes: SharedPrefixes) -> np.ndarray:
    """Groups worth a launch, those that save most first; none if all together are not."""
    saved = (sizes - 1) * prefixes.tokens.astype(np.int64)
    order = np.argsort(-saved, kind="stable")
    order = order[saved[order] >= LEAST_SAVED_BY_GROUP]
    return order if saved[order].sum() >= LEAST_SAVED else order[:0]


def _tiles(
    sizes: np.ndarray, groups: np.ndarray, tile_tokens: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[tiles]: the group of each, its first member's place in the group, and how many it holds.

    The members of a group are dealt evenly: a tile of one member would save nothing.
    """
    tiles = -(-sizes // tile_tokens)
    each = -(-sizes // tiles)
    owner = np.repeat(groups, tiles[groups])[:MOST_TILES]
    first = np.repeat(np.cumsum(tiles[groups]) - tiles[groups], tiles[groups])[:MOST_TILES]
    offset = (np.arange(len(owner)) - first) * each[owner]
    return owner, offset, np.minimum(sizes[owner] - offset, each[owner])
