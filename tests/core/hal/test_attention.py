"""Reference attention against loops over single numbers in float64, on generated ragged batches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.hal.attention import AttentionBatch, AttentionResult, AttentionSpec
from inarch.hal.kv import KVHeads, KVSpec, KVState
from inarch.hal.reference import attention, grouping
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.dense import explicit_attention, masked_attention
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore


@dataclass
class Sequence:
    prefix: int
    parents: list[int]  # of its new tokens; their number is its number of queries
    padding: bool = False


@dataclass
class Case:
    """A batch and everything it is computed from; `kv` holds NaN wherever no token was written."""

    spec: AttentionSpec
    sequences: list[Sequence]
    batch: AttentionBatch
    store: ReferenceKVStore
    kv: KVState
    history: list[tuple[np.ndarray, np.ndarray]]  # per sequence: k, v [prefix, G, D]
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    sinks: torch.Tensor | None

    def run(self, *, lse: bool = False) -> AttentionResult:
        implementation = ReferenceAttention(self.spec, self.store, ReferenceDevice())
        plan = implementation.plan(self.batch).on(ReferenceDevice())
        return implementation.run(
            0, self.q, self.k, self.v, self.kv, plan, sinks=self.sinks, lse=lse
        )


def chain(length: int) -> list[int]:
    return list(range(-1, length - 1))


def build(spec: AttentionSpec, sequences: list[Sequence], page_tokens: int, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape, np.float32)).to(spec.dtype)

    queries = [len(s.parents) for s in sequences]
    lengths = [s.prefix + n for s, n in zip(sequences, queries, strict=True)]
    pages = [
        0 if s.padding else -(-n // page_tokens) for s, n in zip(sequences, lengths, strict=True)
    ]
    pool = sum(pages) + 4  # the null page, and three that nobody names
    rows = rng.permutation(len(sequences) + 2)[: len(sequences)]
    table = np.full((len(sequences) + 2, max(pages) + 1), 1 << 30, np.int32)  # no page at all
    free = 1 + rng.permutation(pool - 1)
    for row, count in zip(rows, pages, strict=True):
        table[row, :count], free = free[:count], free[count:]
    table[[row for row, s in zip(rows, sequences, strict=True) if s.padding]] = 0

    heads = KVHeads(spec.kv_heads, spec.key_dim, spec.value_dim)
    store = ReferenceKVStore(KVSpec((heads,), spec.dtype), page_tokens, torch.device("cpu"))
    kv = store.allocate(pool)
    for part in kv[0]:
        part.fill_(torch.nan)
    history = []
    for row, sequence in zip(rows, sequences, strict=True):
        k = normal(sequence.prefix, spec.kv_heads, spec.key_dim)
        v = normal(sequence.prefix, spec.kv_heads, spec.value_dim)
        slots = [
            table[row, t // page_tokens] * page_tokens + t % page_tokens for t in range(len(k))
        ]
        kv = store.write(kv, 0, torch.tensor(slots, dtype=torch.int64), k, v)
        history.append((k.double().numpy(), v.double().numpy()))
    tokens = sum(queries)
    return Case(
        spec=spec,
        sequences=sequences,
        batch=AttentionBatch(
            q_indptr=np.cumsum([0, *queries]).astype(np.int32),
            kv_lens=np.array(lengths, np.int32),
            rows=rows.astype(np.int32),
            page_table=table,
            tree_parent=np.concatenate([s.parents for s in sequences]).astype(np.int32),
        ),
        store=store,
        kv=kv,
        history=history,
        q=normal(tokens, spec.q_heads, spec.key_dim),
        k=normal(tokens, spec.kv_heads, spec.key_dim),
        v=normal(tokens, spec.kv_heads, spec.value_dim),
        sinks=normal(spec.q_heads).float() if spec.sinks else None,
    )


def oracle(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """out [T, H, value_dim], lse [T, H] of one query, head and key at a time."""
    spec, token = case.spec, 0
    out = np.zeros((len(case.q), spec.q_heads, spec.value_dim))
    lse = np.zeros((len(case.q), spec.q_heads))
    q, k, v = (x.double().numpy() for x in (case.q, case.k, case.v))
    for sequence, (old_k, old_v) in zip(case.sequences, case.history, strict=True):
        start, depth = token, []
        for i, parent in enumerate(sequence.parents):
            depth.append(0 if parent < 0 else depth[parent] + 1)
            position = sequence.prefix + depth[i]
            seen = [(p, old_k[p], old_v[p]) for p in range(sequence.prefix)]
            ancestor = i
            while ancestor >= 0:
                new = start + ancestor
                seen.append((sequence.prefix + depth[ancestor], k[new], v[new]))
                ancestor = sequence.parents[ancestor]
            if spec.window is not None:
                seen = [entry for entry in seen if position - entry[0] < spec.window]
            if spec.chunk is not None:
                own = position // spec.chunk
                seen = [entry for entry in seen if entry[0] // spec.chunk == own]
            for head in range(spec.q_heads):
                group = head * spec.kv_heads // spec.q_heads
                scores = [float(q[token, head] @ key[group]) * spec.scale for _, key, _ in seen]
                if spec.softcap is not None:
                    scores = [spec.softcap * np.tanh(score / spec.softcap) for score in scores]
                terms = np.exp(scores)
                total = terms.sum()
                if case.sinks is not None:
                    total += np.exp(float(case.sinks[head]))
                values = np.stack([value[group] for _, _, value in seen])
                out[token, head] = terms @ values / total
                lse[token, head] = np.log(total)
            token += 1
    return out, lse


def real_tokens(case: Case) -> np.ndarray:
    queries = [len(s.parents) for s in case.sequences]
    return ~np.repeat([s.padding for s in case.sequences], queries)


def assert_matches_oracle(case: Case, *, lse: bool = False) -> None:
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[case.spec.dtype]
    expected, expected_lse = oracle(case)
    result = case.run(lse=lse)
    real = real_tokens(case)
    assert result.out.dtype == case.spec.dtype
    got = result.out.double().numpy()[real]
    np.testing.assert_allclose(got, expected[real], rtol=tolerance, atol=tolerance)
    assert (result.lse is not None) == lse
    if result.lse is not None:
        got = result.lse.double().numpy()[real]
        np.testing.assert_allclose(got, expected_lse[real], rtol=2e-5, atol=2e-5)


@st.composite
def specs(draw: st.DrawFn) -> AttentionSpec:
    kv_heads = draw(st.integers(1, 3))
    key_dim = draw(st.sampled_from([4, 8, 16]))
    return AttentionSpec(
        q_heads=kv_heads * draw(st.integers(1, 4)),
        kv_heads=kv_heads,
        key_dim=key_dim,
        value_dim=draw(st.sampled_from([key_dim, 6])),
        scale=draw(st.sampled_from([key_dim**-0.5, 0.3])),
        dtype=draw(st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float16])),
        window=draw(st.none() | st.integers(1, 40)),
        chunk=draw(st.none() | st.integers(1, 40)),
        softcap=draw(st.none() | st.sampled_from([1.5, 30.0])),
        sinks=draw(st.booleans()),
    )


@st.composite
def sequences(draw: st.DrawFn) -> Sequence:
    prefix = draw(st.integers(0, 60))
    match draw(st.sampled_from(["decode", "extend", "prefill", "tree", "padding"])):
        case "decode":
            return Sequence(prefix, chain(1))
        case "extend":
            return Sequence(prefix, chain(draw(st.integers(2, 20))))
        case "prefill":
            return Sequence(0, chain(draw(st.integers(1, 40))))
        case "tree":
            size = draw(st.integers(2, 8))
            return Sequence(prefix, [draw(st.integers(-1, i - 1)) for i in range(size)])
        case _:
            return Sequence(0, chain(1), padding=True)


@settings(max_examples=150, deadline=None)
@given(
    spec=specs(),
    members=st.lists(sequences(), min_size=1, max_size=7),
    page_tokens=st.sampled_from([1, 16, 128]),
    small_blocks=st.booleans(),
    lse=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_ragged_batch_equals_the_definition_and_touches_no_other_page(
    spec: AttentionSpec,
    members: list[Sequence],
    page_tokens: int,
    small_blocks: bool,
    lse: bool,
    seed: int,
) -> None:
    case = build(spec, members, page_tokens, seed)
    real = torch.from_numpy(real_tokens(case))
    for tensor in (case.q, case.k, case.v):
        tensor[~real] = torch.nan
    before = [part.clone() for part in case.kv[0]]
    with pytest.MonkeyPatch.context() as patch:
        if small_blocks:  # many groups and blocks, as a large batch would have
            patch.setattr(attention, "BLOCK", 200)
            patch.setattr(grouping, "GATHER_BYTES", 4096)
        assert_matches_oracle(case, lse=lse)
    expected = written_by_hand(case, before)
    for part, wanted in zip(case.kv[0], expected, strict=True):
        torch.testing.assert_close(part[1:], wanted[1:], rtol=0, atol=0, equal_nan=True)


def written_by_hand(case: Case, pools: list[torch.Tensor]) -> list[torch.Tensor]:
    size, token = case.store.layout.page_tokens, 0
    for row, sequence in zip(case.batch.rows, case.sequences, strict=True):
        for i in range(len(sequence.parents)):
            position = sequence.prefix + i
            page = case.batch.page_table[row, position // size]
            for pool, new in zip(pools, (case.k, case.v), strict=True):
                pool[page, position % size] = new[token]
            token += 1
    return pools


PLAIN = AttentionSpec(4, 2, 8, 8, 8**-0.5, torch.float32)


def test_without_a_tree_every_sequence_is_a_causal_chain() -> None:
    case = build(PLAIN, [Sequence(5, chain(3)), Sequence(0, chain(4))], 16)
    with_tree = case.run().out
    case.batch = dataclasses.replace(case.batch, tree_parent=None)
    torch.testing.assert_close(case.run().out, with_tree, rtol=0, atol=0)


def test_a_window_of_one_sees_only_the_token_itself() -> None:
    case = build(dataclasses.replace(PLAIN, window=1), [Sequence(9, chain(4))], 16)
    own = case.v.repeat_interleave(2, dim=1)  # two query heads share a KV head
    torch.testing.assert_close(case.run().out, own)


@pytest.mark.parametrize("sequence", [Sequence(9, chain(1)), Sequence(0, chain(10))])
def test_a_window_of_one_less_than_the_length_hides_the_first_token(sequence: Sequence) -> None:
    assert_matches_oracle(build(dataclasses.replace(PLAIN, window=9), [sequence], 16))


def test_pages_that_left_the_window_are_not_read() -> None:
    spec = dataclasses.replace(PLAIN, window=8)
    case = build(spec, [Sequence(64, chain(1)), Sequence(70, chain(2))], 16)
    for row in case.batch.rows:
        case.batch.page_table[row, :3] = 0  # tokens 0..47; the null page holds NaN
    assert_matches_oracle(case)


def test_siblings_of_a_draft_tree_do_not_see_each_other() -> None:
    case = build(PLAIN, [Sequence(3, [-1, 0, 0])], 16)
    first = case.run().out[2].clone()
    case.v[1] += 100
    torch.testing.assert_close(case.run().out[2], first, rtol=0, atol=0)


def test_siblings_lie_at_the_same_position_of_a_window() -> None:
    """Six siblings after a prefix of 4: a window of 2 shows each the last prefix token and itself."""
    spec = dataclasses.replace(PLAIN, window=2)
    assert_matches_oracle(build(spec, [Sequence(4, [-1] * 6)], 16), lse=True)


def test_decodes_of_very_different_lengths_are_not_padded_to_the_longest() -> None:
    case = build(PLAIN, [Sequence(n, chain(1)) for n in (3, 900, 5, 1000)], 16)
    device = ReferenceDevice()
    plan = ReferenceAttention(PLAIN, case.store, device).plan(case.batch).on(device)
    assert sum(group.size * group.span for group in plan.groups) < 1.25 * (900 + 1000 + 2 * 64)
    assert_matches_oracle(case)


def test_a_plan_keeps_nothing_of_the_arrays_it_was_given() -> None:
    case = build(PLAIN, [Sequence(20, chain(1)), Sequence(3, chain(2))], 16)
    expected = case.run().out
    implementation = ReferenceAttention(PLAIN, case.store, ReferenceDevice())
    plan = implementation.plan(case.batch).on(ReferenceDevice())
    for array in (case.batch.page_table, case.batch.kv_lens, case.batch.rows, case.batch.q_indptr):
        array.fill(0)
    got = implementation.run(0, case.q, case.k, case.v, case.kv, plan).out
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_a_store_of_another_dtype_is_read_back_even_for_new_tokens(stored: torch.dtype) -> None:
    """Else an answer would depend on whether its prompt was cached."""
    heads = KVHeads(2, 8, 8)
    store = ReferenceKVStore(KVSpec((heads,), stored), 16, torch.device("cpu"))
    q, k, v = torch.randn(6, 4, 8), torch.randn(6, 2, 8), torch.randn(6, 2, 8)
    table = np.array([[1, 2]], np.int32)

    def attend(first: int, kv: KVState) -> torch.Tensor:
        batch = AttentionBatch(
            np.array([0, 6 - first], np.int32),
            np.array([6], np.int32),
            np.zeros(1, np.int32),
            table,
        )
        implementation = ReferenceAttention(PLAIN, store, ReferenceDevice())
        plan = implementation.plan(batch).on(ReferenceDevice())
        return implementation.run(0, q[first:], k[first:], v[first:], kv, plan).out

    kv = store.allocate(3)
    at_once = attend(0, kv)
    torch.testing.assert_close(attend(4, kv), at_once[4:])


def rounded_to(dtype: torch.dtype, x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(x).to(dtype).double().numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_over_fp8_pages_it_computes_with_the_rounded_keys_and_values(dtype: torch.dtype) -> None:
    spec = dataclasses.replace(PLAIN, dtype=dtype)
    case = build(spec, [Sequence(40, chain(1)), Sequence(5, chain(9)), Sequence(0, chain(7))], 16)
    exact = case.run().out.float()
    heads = KVHeads(spec.kv_heads, spec.key_dim, spec.value_dim)
    wide, pages = case.kv, KVSpec((heads,), torch.float8_e4m3fn)
    case.store = ReferenceKVStore(pages, 16, torch.device("cpu"))
    case.kv = [tuple(part.to(pages.dtype) for part in wide[0])]
    rounded = case.run().out
    assert rounded.dtype == dtype
    assert 1e-3 < (rounded - exact).abs().max() < 0.2
    case.history = [
        (rounded_to(pages.dtype, k), rounded_to(pages.dtype, v)) for k, v in case.history
    ]
    case.k, case.v = (x.to(pages.dtype).to(dtype) for x in (case.k, case.v))
    assert_matches_oracle(case)


def test_a_fully_masked_row_gives_zero_and_minus_infinity() -> None:
    q, kv = torch.randn(1, 2, 4, 8), torch.randn(1, 5, 2, 8)
    visible = torch.tensor([[[False] * 5, [True] * 5]])
    out, lse = explicit_attention(q, kv, kv, visible, 0.5)
    assert (out[0, 0] == 0).all()
    assert (lse[0, 0] == -torch.inf).all()
    assert lse[0, 1].isfinite().all()
    assert (masked_attention(q, kv, kv, visible, 0.5)[0, 0] == 0).all()


def test_a_sink_is_all_that_a_fully_masked_row_has() -> None:
    q, kv = torch.randn(1, 1, 4, 8), torch.randn(1, 5, 2, 8)
    sinks = torch.tensor([-200.0, 0.0, 1.0, 200.0])
    visible = torch.zeros(1, 1, 5, dtype=torch.bool)
    out, lse = explicit_attention(q, kv, kv, visible, 0.5, sinks=sinks)
    assert (out == 0).all()
    torch.testing.assert_close(lse[0, 0], sinks)
