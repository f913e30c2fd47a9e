"""How a batch is cut into work items: every key of every query exactly once, in bounded arrays."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.hal.attention import AttentionBatch
from inarch_triton.tile import Tile
from inarch_triton.work import Shape, cut, most_extra, work_shape


def batch_of(prefixes: list[int], queries: list[int]) -> AttentionBatch:
    return AttentionBatch(
        q_indptr=np.cumsum([0, *queries]).astype(np.int32),
        kv_lens=np.array(prefixes, np.int32) + np.array(queries, np.int32),
        rows=np.arange(len(queries), dtype=np.int32),
        page_table=np.zeros((1, 1), np.int32),
    )


SEQUENCES = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 300)), min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(
    sequences=SEQUENCES,
    tile_tokens=st.sampled_from([1, 4, 32]),
    chunk=st.sampled_from([64, 1024]),
    extra=st.integers(0, 70),
    window=st.none() | st.integers(1, 2000),
)
def test_every_query_attends_to_each_of_its_keys_once(
    sequences: list[tuple[int, int]],
    tile_tokens: int,
    chunk: int,
    extra: int,
    window: int | None,
) -> None:
    prefixes, queries = (list(part) for part in zip(*sequences, strict=True))
    shape = Shape(tile_tokens, keys=64, chunk=chunk, extra=extra)
    batch = batch_of(prefixes, queries)
    totals = sum(queries), len(queries)
    sizes = shape.items(*totals), shape.jobs(*totals)
    work = cut(batch, np.arange(len(queries)), shape, window, sizes, trees=False)
    covered: dict[int, list[tuple[int, int]]] = {}
    slots = []
    for row, first, tokens, position, begin, end, slot, *_ in work.items.tolist():
        if tokens == 0:
            continue
        assert tokens <= tile_tokens
        assert begin % 64 == 0
        assert begin < end
        assert position == prefixes[row] + first - batch.q_indptr[row]
        slots += [slot] if slot >= 0 else []
        for token in range(first, first + tokens):
            covered.setdefault(token, []).append((begin, end))
    assert sorted(covered) == list(range(sum(queries)))
    for sequence, (prefix, count) in enumerate(sequences):
        for i in range(count):
            runs = sorted(covered[int(batch.q_indptr[sequence]) + i])
            assert all(a[1] == b[0] for a, b in itertools.pairwise(runs))
            seen = 0 if window is None else max(0, prefix + i - window + 1)
            assert runs[0][0] <= seen
            assert runs[-1][1] > prefix + i
    assert sorted(slots) == list(range(len(slots)))
    assert len(slots) <= 2 * extra
    merged = [(first, count) for _, _, first, count in work.jobs.tolist() if count]
    assert sorted(s + i for s, count in merged for i in range(count)) == sorted(slots)


def test_long_runs_come_first_so_that_none_is_left_for_the_end() -> None:
    shape = Shape(tile_tokens=1, keys=64, chunk=128, extra=8)
    work = cut(
        batch_of([10, 5000, 700], [1, 1, 1]), np.arange(3), shape, None, (11, 3), trees=False
    )
    lengths = work.items[:, 5] - work.items[:, 4]
    assert (np.diff(lengths) <= 0).all()
    assert lengths[0] < 1000, "the long run was cut"


@given(
    tokens=st.integers(1, 600), seqs=st.integers(1, 600), kv_heads=st.sampled_from([1, 2, 8, 32])
)
def test_there_is_always_room_for_a_sequence_longer_than_the_others(
    tokens: int, seqs: int, kv_heads: int
) -> None:
    tile = Tile(rows=16, keys=64, warps=4, stages=3, waves=8, chunk=128)
    shape = work_shape(tile, 4, kv_heads, max(tokens, seqs), seqs, processors=132)
    assert 1 <= shape.extra <= most_extra(kv_heads, 132, 8)
