"""Attention over pages against its definition in float64: every feature, dtype, size and variant."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inarch.hal.attention import AttentionSpec, Rotation
from inarch.hal.kv import KVHeads, KVSpec
from inarch_intel_cpu.attention import CpuAttention
from inarch_intel_cpu.kv import CpuKVStore

from .attention_oracle import Case

# Rounding of what comes out, and of weights where bfloat16 is multiplied by itself.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def spec_of(dtype=torch.float32, *, heads=4, kv_heads=2, dim=64, value_dim=None, **more):
    return AttentionSpec(
        heads, kv_heads, dim, value_dim or dim, more.pop("scale", dim**-0.5), dtype, **more
    )


def attend(native, case, kept=None, *, lse=True, rotation=None):
    """The result, the store and its state after; whatever no sequence owns is NaN before."""
    spec = case.spec
    kept = kept or spec.dtype
    heads = KVHeads(spec.kv_heads, spec.key_dim, spec.value_dim)
    store = CpuKVStore(KVSpec((heads, heads), kept), case.page_tokens, native)
    kv = store.allocate(case.pages)
    for part in itertools.chain(*kv):
        part.fill_(torch.nan)
    for s, (length, count) in enumerate(zip(case.kv_lens, case.q_lens, strict=True)):
        cached = np.arange(length - count)
        parts = case.keys[s][: len(cached)], case.values[s][: len(cached)]
        store.write(kv, 1, case.slots(s, cached), *parts)
    attention = CpuAttention(spec, store, None, native=native, turns=TURNS)
    plan = attention.plan(case.batch).bind({})
    q, k, v = case.q.clone(), case.new(case.keys), case.new(case.values)
    result = attention.run(1, q, k, v, kv, plan, rotation=rotation, sinks=case.sinks, lse=lse)
    return result, store, kv


def turn(q, k, *more, **options):
    raise AssertionError("the rotation is the attention's own to do")


TURNS = (turn,)


def check(native, case, kept=None):
    result, _, _ = attend(native, case, kept)
    out, sums = case.expected(kept)
    tolerance = max(TOLERANCE[case.spec.dtype], TOLERANCE.get(kept, 0))
    torch.testing.assert_close(result.out.double(), out, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(result.lse.double(), sums, atol=tolerance, rtol=tolerance)


MIXED = {"q_lens": [1, 5, 1, 40, 1, 33], "kv_lens": [1, 5, 300, 90, 17, 33]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [(4, 2, 64), (14, 2, 64), (3, 3, 40), (5, 1, 33), (2, 1, 128)])
def test_a_mixed_batch_is_attended_as_defined(native, dtype, sizes):
    heads, kv_heads, dim = sizes
    check(
        native,
        Case(spec_of(dtype, heads=heads, kv_heads=kv_heads, dim=dim), **MIXED, page_tokens=16),
    )


@pytest.mark.parametrize(
    "features",
    [
        {"window": 7},
        {"window": 100},
        {"chunk": 32},
        {"softcap": 3.0},
        {"sinks": True},
        {"sinks": True, "window": 20, "softcap": 5.0},
        {"value_dim": 24},
        {"scale": 3.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_feature_is_as_defined(native, features, dtype):
    check(native, Case(spec_of(dtype, **features), **MIXED, page_tokens=32))


@pytest.mark.parametrize("window", [None, 9])
def test_where_it_is_not_causal_later_tokens_are_seen_too(native, window):
    lengths = [1, 5, 40, 130]
    check(native, Case(spec_of(causal=False, window=window), lengths, lengths, page_tokens=16))


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float32, torch.bfloat16),
        (torch.float32, torch.float16),
        (torch.float32, torch.float8_e4m3fn),
        (torch.bfloat16, torch.float8_e4m3fn),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.bfloat16),
    ],
)
def test_pages_may_be_of_another_dtype(native, dtype, kept):
    case = Case(spec_of(dtype), **MIXED, page_tokens=16)
    check(native, case, kept)


@pytest.mark.parametrize("features", [{}, {"window": 3}, {"chunk": 4}], ids=str)
def test_a_tree_of_drafts_sees_its_own_branch(native, features):
    parents = [[-1, 0, 0, 1, -1, 4], [-1], [-1, 0, 1, 2], [1, -1, 1]]
    case = Case(
        spec_of(**features), [6, 1, 4, 3], [50, 20, 4, 200], page_tokens=16, parents=parents
    )
    check(native, case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_group_shares_counts_once_for_each_member(native, dtype):
    case = Case(
        spec_of(dtype, heads=14, sinks=True), [1, 3, 1, 1, 1], [130, 90, 200, 129, 64], page_tokens=16,
        shared=([0, 2, 3], 128),
    )  # fmt: skip
    check(native, case)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_long_contexts_are_the_same_by_any_number_of_threads(native, threads):
    native.set_threads(threads)
    case = Case(
        spec_of(heads=7, kv_heads=1, sinks=True), [1, 1, 2], [5000, 30, 1111], page_tokens=64
    )
    check(native, case)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_batch_is_attended_as_defined(native, data):
    kv_lens = data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=5))
    q_lens = [data.draw(st.integers(1, length)) for length in kv_lens]
    dim, value_dim = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 80))
    kv_heads, group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    spec = spec_of(
        data.draw(st.sampled_from(list(TOLERANCE))), heads=kv_heads * group, kv_heads=kv_heads, dim=dim,
        value_dim=value_dim, window=data.draw(st.none() | st.integers(1, 250)),
        sinks=data.draw(st.booleans()), softcap=data.draw(st.none() | st.floats(1, 50)),
    )  # fmt: skip
    page = data.draw(st.sampled_from([16, 48, 64, 256]))
    check(native, Case(spec, q_lens, kv_lens, page, seed=data.draw(st.integers(0, 9))))


def test_a_page_that_is_not_in_the_plan_stays_as_it_is(native):
    case = Case(spec_of(torch.bfloat16), **MIXED, page_tokens=16)
    _, store, kv = attend(native, case)
    for s, length in enumerate(case.kv_lens):
        count = -(-length // 16)
        pages = torch.from_numpy(case.table[case.rows[s], :count].astype(np.int64))
        k, v = store.read(kv, 1, pages)
        for found, given_ in ((k, case.keys[s]), (v, case.values[s])):
            assert torch.equal(found[:length], given_)
            assert found[length:].isnan().all()
    used = {
        int(p)
        for row, n in zip(case.rows, case.kv_lens, strict=True)
        for p in case.table[row, : -(-n // 16)]
    }
    others = torch.tensor([page for page in range(case.pages) if page not in used])
    assert all(part.isnan().all() for part in store.read(kv, 1, others))
    assert all(part.isnan().all() for part in kv[0])


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_q_and_k_are_rotated_on_the_way(native, interleaved, norm, dtype):
    from inarch.hal.ops.rotary import qk_norm_rope, rope

    case = Case(spec_of(dtype, dim=48), [3, 1, 20], [3, 30, 20], page_tokens=16)
    make = torch.Generator().manual_seed(1)
    cos_sin = torch.randn(64, 32, generator=make)
    positions = torch.randint(0, 64, (24,), generator=make)
    weights = (
        torch.rand(48, generator=make).to(dtype),
        torch.rand(48, generator=make).to(dtype),
        1e-5,
    )
    rotation = Rotation(turn, positions, cos_sin, interleaved, weights if norm else None)
    result, _, _ = attend(native, case, rotation=rotation)
    op, extra = (qk_norm_rope, weights) if norm else (rope, ())
    at = 0
    case.q, k = op(case.q, case.new(case.keys), *extra, positions, cos_sin, interleaved=interleaved)
    for s, count in enumerate(case.q_lens):
        case.keys[s][case.kv_lens[s] - count :] = k[at : at + count]
        at += count
    out, _ = case.expected()
    tolerance = 2 * TOLERANCE[dtype]
    torch.testing.assert_close(result.out.double(), out, atol=tolerance, rtol=tolerance)
