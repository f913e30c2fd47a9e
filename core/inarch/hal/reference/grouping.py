"""Cut a ragged batch into groups of sequences that are attended in one call each.

A group holds sequences with equally many query tokens and similarly many keys, so that padding to
the longest wastes little, and no more keys than stay in the processor's cache between being
gathered and being used. Everything here is numpy over whole arrays; only groups, of which there are
few, are visited one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from inarch.hal.attention import AttentionBatch
from inarch.hal.kv import NULL_PAGE

GATHER_BYTES = 2 << 20  # K and V gathered at a time; measured best between 1 and 4 MiB
SPAN_RATIO = 1.25  # longest to shortest in a group
SPAN_MIN = 64  # below this many keys, padding costs less than another call


@dataclass(frozen=True)
class HostGroup:
    """n sequences of Q query tokens each; a span is the run of keys that a sequence reads.

    A span starts at the first page of which a query sees anything (0 without a window). `span` is
    the group's longest; gathered spans are padded to it.
    """

    tokens: np.ndarray  # [n * Q]: where its query tokens are in the batch
    queries: int
    span: int
    spans: np.ndarray  # [n]
    pages: np.ndarray | None  # [n, pages]; None: all keys are new, K and V are at `tokens`
    tree_mask: np.ndarray | None  # bool [n, Q, span]: which keys a query sees; None: chains


def query_slots(batch: AttentionBatch, page_tokens: int) -> np.ndarray:
    """int64 [T]: the place in the KV pool of each new token."""
    q_lens = np.diff(batch.q_indptr)
    ends = np.repeat(batch.q_indptr[1:], q_lens)
    positions = np.repeat(batch.kv_lens, q_lens) - ends + np.arange(len(ends))
    pages = batch.page_table[np.repeat(batch.rows, q_lens), positions // page_tokens]
    slots: np.ndarray = pages.astype(np.int64) * page_tokens + positions % page_tokens
    return slots


def group_sequences(
    batch: AttentionBatch,
    page_tokens: int,
    window: int | None,
    chunk: int | None,
    token_bytes: int,
    *,
    reuse: bool,
) -> Iterator[HostGroup]:
    """Yield groups that cover every sequence once.

    token_bytes: size of one token's K and V. reuse: a sequence without a cached prefix need not
    read back from its pages what has just been written to them.
    """
    count = int(np.searchsorted(batch.q_indptr, batch.q_indptr[-1]))  # others have no query
    batch = replace(
        batch,
        q_indptr=batch.q_indptr[: count + 1],
        kv_lens=batch.kv_lens[:count],
        rows=batch.rows[:count],
    )
    q_lens = np.diff(batch.q_indptr).astype(np.int64)
    kv_lens = batch.kv_lens.astype(np.int64)
    prefixes = kv_lens - q_lens
    # Chunks are counted from the first token, so that spans start there.
    skips = window if window and not chunk else kv_lens.max(initial=0) + 1
    first_page = np.maximum(prefixes - skips + 1, 0) // page_tokens
    spans = kv_lens - first_page * page_tokens
    fresh = (prefixes == 0) & reuse
    parents = batch.tree_parent if batch.tree_parent is not None else _chain(batch, q_lens)
    branches = parents != _chain(batch, q_lens)
    trees = np.add.reduceat(branches, batch.q_indptr[:-1]) > 0

    size_class = np.ceil(np.log(np.maximum(spans, SPAN_MIN)) / np.log(SPAN_RATIO))
    keys = np.stack([size_class, fresh, trees, q_lens])
    order = np.lexsort(keys)
    for run in _equal_runs(keys[:, order]):
        members = order[run]
        room = max(1, GATHER_BYTES // (int(spans[members].max()) * token_bytes))
        for start in range(0, len(members), room):
            chosen = np.sort(members[start : start + room])
            first = chosen[0]
            tokens = batch.q_indptr[chosen, None] + np.arange(q_lens[first])
            pages, tree_mask = None, None
            if not fresh[first]:
                pages = _pages(batch, chosen, first_page, page_tokens)
            if trees[first]:
                tree_mask = _tree_mask(parents[tokens], spans[chosen], window, chunk)
            yield HostGroup(
                tokens=tokens.ravel(),
                queries=int(q_lens[first]),
                span=int(spans[chosen].max()),
                spans=spans[chosen],
                pages=pages,
                tree_mask=tree_mask,
            )


def _equal_runs(keys: np.ndarray) -> Iterator[slice]:
    changes = np.flatnonzero((keys[:, 1:] != keys[:, :-1]).any(axis=0)) + 1
    borders = [0, *changes.tolist(), keys.shape[1]]
    return (slice(a, b) for a, b in itertools.pairwise(borders) if b > a)


def _pages(
    batch: AttentionBatch, chosen: np.ndarray, first_page: np.ndarray, page_tokens: int
) -> np.ndarray:
    """int64 [n, most pages]: the pages of each span; the null page behind the shorter ones."""
    starts, ends = first_page[chosen], -(-batch.kv_lens[chosen] // page_tokens)
    columns = starts[:, None] + np.arange((ends - starts).max())
    last = batch.page_table.shape[1] - 1
    table = batch.page_table[batch.rows[chosen, None], np.minimum(columns, last)]
    return np.where(columns < ends[:, None], table, NULL_PAGE).astype(np.int64)


def _chain(batch: AttentionBatch, q_lens: np.ndarray) -> np.ndarray:
    """int64 [T]: tree_parent of a batch in which each token follows the one before it."""
    starts = np.repeat(batch.q_indptr[:-1], q_lens)
    chain: np.ndarray = np.arange(len(starts)) - starts - 1
    return chain


def _tree_mask(
    parents: np.ndarray, spans: np.ndarray, window: int | None, chunk: int | None
) -> np.ndarray:
    """bool [n, Q, longest span]: the prefix, ancestors and itself, within the window or chunk."""
    ancestors = _ancestors(parents)
    queries = parents.shape[1]
    place = np.arange(spans.max()) - (spans[:, None] - queries)  # [n, L]: in the draft; < 0: prefix
    drafted = np.clip(place, 0, queries - 1)
    seen = np.take_along_axis(ancestors, drafted[:, None, :].repeat(queries, 1), axis=2)
    mask = np.where((place < 0)[:, None], True, seen & (place < queries)[:, None])
    depth = ancestors.sum(-1) - 1
    level = np.where(place < 0, place, np.take_along_axis(depth, drafted, axis=1))
    if window:
        mask &= depth[:, :, None] - level[:, None, :] < window
    if chunk:
        first = spans[:, None] - queries  # the position of depth 0
        mask &= ((first + depth) // chunk)[:, :, None] == ((first + level) // chunk)[:, None, :]
    return mask


def _ancestors(parents: np.ndarray) -> np.ndarray:
    """bool [n, Q, Q] from parents [n, Q]: the reflexive, transitive closure, by squaring."""
    size = parents.shape[1]
    reach: np.ndarray = (parents[:, :, None] == np.arange(size)) | np.eye(size, dtype=bool)
    for _ in range(size.bit_length()):
        reach = reach @ reach
    return reach
