"""Cut a ragged batch into blocks of queries, each of one sequence: see paged.py."""

from __future__ import annotations

import numpy as np

from inarch.hal.attention import AttentionBatch
from inarch_tpu.paged import TOGETHER
from inarch_tpu.tensor import padded_rows

LARGEST = 64  # queries of a block


def cut(batch: AttentionBatch, table: np.ndarray, *, causal: bool) -> dict[str, np.ndarray]:
    """The arrays of `Blocks` for page tables [S, pages]; of a bucket, their shapes are its own."""
    lengths = np.diff(batch.q_indptr).astype(np.int64)
    size, room = _sizes(batch, lengths)
    of_sequence = -(-lengths // size)
    sequence = np.repeat(np.arange(len(lengths)), of_sequence)
    number = np.arange(len(sequence)) - np.repeat(np.cumsum(of_sequence) - of_sequence, of_sequence)
    begin = number * size  # among the sequence's queries
    queries = np.minimum(lengths[sequence] - begin, size)
    tokens = batch.q_indptr[sequence][:, None] + begin[:, None] + np.arange(size)
    first = (batch.kv_lens - lengths)[sequence] + begin
    keys = first + queries if causal else batch.kv_lens[sequence]
    places = np.repeat(np.cumsum(of_sequence) - of_sequence, lengths) * size
    places += np.arange(lengths.sum()) - np.repeat(batch.q_indptr[:-1], lengths)
    arrays = {
        "tokens": np.minimum(tokens, max(int(lengths.sum()) - 1, 0)),
        "sequence": sequence,
        "first": first,
        "keys": keys,
    }
    more = room - len(sequence)
    if more:
        arrays = {
            name: np.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1)) for name, x in arrays.items()
        }
    padded = {name: x.astype(np.int32) for name, x in arrays.items()}
    return padded | {"table": table, "places": places.astype(np.int32)}


def _sizes(batch: AttentionBatch, lengths: np.ndarray) -> tuple[int, int]:
    """Queries of a block, and blocks: as many as any batch of the bucket may need."""
    longest = int(lengths.max(initial=1)) if batch.bucket is None else batch.bucket.max_query
    if batch.tree_parent is not None:
        size = padded_rows(int(lengths.max(initial=1)))
        needed = len(lengths)
    else:
        size = min(padded_rows(longest), LARGEST)
        needed = int(batch.q_indptr[-1]) // size + len(lengths) if size > 1 else len(lengths)
    together = min(max(1, TOGETHER // size), padded_rows(needed))
    return size, -(-needed // together) * together


def tree_of(batch: AttentionBatch, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Ancestors and depths of drafted tokens, for blocks with `tokens` [N, B]."""
    count, size = tokens.shape
    lengths, parents = np.diff(batch.q_indptr), batch.tree_parent
    assert parents is not None
    reach = np.zeros((count, size, size), bool)
    for s, (start, length) in enumerate(zip(batch.q_indptr[:-1], lengths, strict=True)):
        for i, parent in enumerate(parents[start : start + length].tolist()):
            if parent >= 0:
                reach[s, i] = reach[s, parent]
            reach[s, i, i] = True
    depths = np.maximum(reach.sum(-1) - 1, 0)
    return {"ancestors": reach, "depths": depths.astype(np.int32)}
