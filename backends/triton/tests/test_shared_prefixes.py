"""Prefixes that decodes share, attended to once: the same results as without, and the work itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, not with this one")

from inarch.hal.attention import AttentionBatch, AttentionSpec, SharedPrefixes
from inarch.hal.executor import StepShape
from inarch_triton import attention, shared
from inarch_triton.attention import TritonAttention
from inarch_triton.shared import share
from inarch_triton.tiles import choose_tile
from inarch_triton.work import Shape

from .test_triton_attention import GPU, REAL, Buffers, Case, build, chain, check, padded_to, spec

Groups = list[tuple[list[int], int]]  # members, shared tokens


@pytest.fixture(autouse=True)
def every_group_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "LEAST_SAVED_BY_GROUP", 1)
    monkeypatch.setattr(shared, "LEAST_SAVED", 1)
    monkeypatch.setattr(shared, "MOST_TILES", 12)  # Triton's interpreter is slow


def hint(groups: Groups) -> SharedPrefixes:
    members, tokens = zip(*groups, strict=True)
    return SharedPrefixes(
        np.concatenate(members).astype(np.int32),
        np.cumsum([0, *map(len, members)]).astype(np.int32),
        np.array(tokens, np.int32),
    )


def sharing(case: Case, groups: Groups) -> Case:
    """The case, where the members of each group have the first one's pages and K and V."""
    table, history = case.batch.page_table.copy(), list(case.history)
    for (first, *others), tokens in groups:
        pages = tokens // case.page_tokens
        for other in others:
            table[case.batch.rows[other], :pages] = table[case.batch.rows[first], :pages]
            history[other] = tuple(part[tokens:] for part in history[other])
    batch = dataclasses.replace(case.batch, page_table=table, shared=hint(groups))
    return dataclasses.replace(case, batch=batch, history=history)


def random_case(what: AttentionSpec, page_tokens: int, seed: int, seqs: int = 12) -> Case:
    """Groups of scattered decodes, decodes alone, and among them sequences of several queries."""
    rng = np.random.default_rng(seed)
    order, groups = rng.permutation(seqs), []
    sequences = [(int(rng.integers(0, 100)), chain(1)) for _ in range(seqs)]
    while len(order) > seqs // 3:
        members, order = np.split(order, [min(int(rng.integers(2, 8)), len(order))])
        tokens = page_tokens * int(rng.integers(1, 1 + 200 // page_tokens))
        for member in members:
            sequences[member] = (tokens + int(rng.integers(0, 90)), chain(1))
        groups.append((members.tolist(), tokens))
    for several in order[: int(rng.integers(0, 3))]:
        sequences[several] = (int(rng.integers(0, 90)), chain(int(rng.integers(2, 40))))
    return sharing(build(what, sequences, page_tokens, tree=False), groups)


CASES = {
    "plain": (spec(), 16),
    "tiles of one page each": (spec(dtype=torch.float16), 64),
    "bfloat16": (spec(dtype=torch.bfloat16), 16),
    "head sizes that are no power of two": (spec(key_dim=24, value_dim=12), 16),
    "a group of three heads": (spec(q_heads=6), 32),
    "every head its own keys": (spec(q_heads=2), 16),
    "sinks and a soft-cap": (spec(sinks=True, softcap=1.5), 16),
}
GPU_CASES = {
    f"head size {dim}, {dtype}, pages of {page}":
        (spec(**REAL | {"key_dim": dim, "value_dim": dim, "dtype": dtype}), page)
    for dim in (64, 80, 128, 256)
    for dtype, page in ((torch.bfloat16, 16), (torch.bfloat16, 64), (torch.float32, 16))
}  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", [*CASES, *(GPU_CASES if GPU else ())])
def test_attention_with_shared_prefixes_equals_the_reference(
    name: str, seed: int, device, launched
) -> None:
    check(random_case(*(CASES | GPU_CASES)[name], seed), device, lse=seed > 0)
    assert launched == [True]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the plans that are made attend to anything once for several."""
    found: list[bool] = []
    plan = TritonAttention.plan

    def noted(self, batch):
        made = plan(self, batch)
        found.append("members" in made.arrays and bool(made.arrays["shared_items"][:, 2].any()))
        return made

    monkeypatch.setattr(TritonAttention, "plan", noted)
    return found


def test_a_long_prefix_is_cut_and_so_is_what_comes_behind_it(device, launched) -> None:
    sequences = [(1040 + own, chain(1)) for own in (0, 500, 33)]
    case = sharing(build(spec(), sequences, 16, tree=False), [([0, 1, 2], 1040)])
    case.k[-1] = 3 * case.q[-1, :1]
    check(case, device, lse=True)
    ours, _ = case.attention(device)
    arrays = ours.plan(case.batch).arrays
    assert (arrays["shared_items"][:, 2] > 0).sum() > 1, "the shared prefix is cut"
    assert (arrays["short_items"][:, 0] == case.batch.rows[1]).sum() > 1, "a long rest is cut too"


@pytest.mark.parametrize(
    ("what", "tree"), [(spec(window=100), False), (spec(), True)], ids=["window", "tree"]
)
def test_the_hint_is_passed_over_where_not_all_of_the_prefix_is_seen(
    what: AttentionSpec, tree: bool, device, launched
) -> None:
    sequences = [(170 + i, chain(1)) for i in range(4)]
    check(sharing(build(what, sequences, 16, tree=tree), [([0, 2, 3], 160)]), device, lse=True)
    assert launched == [False]


def test_a_batch_that_would_save_little_is_planned_as_if_it_shared_nothing(
    device, launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = random_case(spec(), 16, seed=0)
    ours, _ = case.attention(device)
    ours.plan(case.batch)
    monkeypatch.setattr(shared, "LEAST_SAVED", 1 << 20)
    ours.plan(case.batch)
    assert launched == [True, False]


FIVE = [(50 + i, chain(1)) for i in range(5)]
BUCKETS = {
    "decodes": (StepShape(8, 8, 1), [
        (FIVE, [([0, 2], 48), ([4, 3], 32)]),
        (FIVE[:3], []),
        (FIVE, [([4, 1], 16)]),
        (FIVE[:4], [([0, 1, 2, 3], 32)]),
    ]),
    "prompts and decodes": (StepShape(32, 8, 32), [
        ([*FIVE[:3], (0, chain(20))], [([0, 2], 48)]),
        ([(40, chain(20))], []),
        ([*FIVE[:2], (10, chain(2))], [([0, 1], 32)]),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", BUCKETS)
def test_batches_of_a_bucket_have_the_same_launches_whatever_they_share(
    name: str, device, launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LEAST_SEQS", 8)
    bucket, batches = BUCKETS[name]
    buffers, ours, seen = Buffers(device), None, set()
    for sequences, groups in [*batches, batches[1]]:
        plain = build(spec(), sequences, 16, tree=False)
        plain = sharing(plain, groups) if groups else plain
        case = padded_to(bucket, plain)
        batch = dataclasses.replace(case.batch, shared=plain.batch.shared)
        fresh, kv = case.attention(device)
        ours = ours or fresh
        plan = buffers.bring(ours.plan(batch))
        seen.add((plan.addresses, *(launch.items.shape for launch in plan.launches)))
        got = ours.run(0, *case.inputs(device), kv, plan)
        found = got.out[: len(plain.q)].cpu()
        torch.testing.assert_close(found, plain.reference().out, rtol=2e-5, atol=2e-5)
    assert len(seen) == 1
    assert launched == [bool(groups) for _, groups in [*batches, batches[1]]]


def test_a_small_captured_batch_has_no_launch_for_what_it_shares(device) -> None:
    plain = sharing(build(spec(), FIVE, 16, tree=False), [([0, 2], 48)])
    case = padded_to(StepShape(8, 8, 1), plain)
    batch = dataclasses.replace(case.batch, shared=plain.batch.shared)
    assert case.attention(device)[0].plan(batch).arrays.keys() == {
        "slots", "short_items", "short_jobs",
    }  # fmt: skip


def test_padding_has_no_part_in_it(device) -> None:
    sequences = [(40, chain(1)), (45, chain(1)), (0, chain(1)), (0, chain(1))]
    case = sharing(build(spec(), sequences, 16, tree=False), [([0, 1], 32)])
    case.batch.page_table[case.batch.rows[2:]] = 0
    ours, kv = case.attention(device)
    got = ours.run(0, *case.inputs(device), kv, ours.plan(case.batch).on(device))
    torch.testing.assert_close(got.out[:2].cpu(), case.reference().out[:2], rtol=2e-5, atol=2e-5)


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(2, 90), st.integers(1, 200)), min_size=1, max_size=40),
    tile_tokens=st.sampled_from([4, 16, 32]),
    extra=st.integers(1, 70),
    chunk=st.sampled_from([64, 512]),
)
def test_every_member_takes_up_each_shared_key_once(
    sizes: list[tuple[int, int]], tile_tokens: int, extra: int, chunk: int
) -> None:
    counts, pages = (list(part) for part in zip(*sizes, strict=True))
    total, group = sum(counts), 4
    order = np.random.default_rng(total).permutation(total)
    groups = np.split(order, np.cumsum(counts)[:-1])
    tokens = [64 * n for n in pages]
    batch = AttentionBatch(
        q_indptr=np.arange(total + 1, dtype=np.int32),
        kv_lens=np.full(total, 64 * 200 + 1, np.int32),
        rows=np.arange(total, dtype=np.int32),
        page_table=np.zeros((1, 1), np.int32),
        shared=hint([(members.tolist(), n) for members, n in zip(groups, tokens, strict=True)]),
    )
    work = share(batch, Shape(tile_tokens, keys=64, chunk=chunk, extra=extra), group)
    assert work is not None
    assert len(work.items) == shared.MOST_TILES + extra
    by_slot = {int(item[6]): item for item in work.items if item[2]}
    assert sorted(by_slot) == list(range(len(by_slot)))
    members = work.members.reshape(-1)
    for sequences, length in zip(groups, tokens, strict=True):
        for sequence in sequences:
            shared_keys, slot, count, row = work.resumed[sequence].tolist()
            if not shared_keys:
                continue
            items = [by_slot[slot + i] for i in range(count)]
            assert shared_keys == length
            assert [item[4] for item in items] == [0, *(item[5] for item in items[:-1])]
            assert items[-1][5] == length
            assert all(item[0] in sequences and item[3] >= length for item in items)
            assert all(members[item[1] + row // group] == sequence for item in items)
            assert all(row // group < item[2] <= tile_tokens for item in items)
    firsts = [item for item in work.items if item[2] and item[4] == 0]
    assert sum(item[2] for item in firsts) == (work.resumed[:, 0] > 0).sum(), "each in one tile"
    tiles = sum(-(-n // tile_tokens) for n in counts)
    assert (work.resumed[:, 0] > 0).all() == (tiles <= shared.MOST_TILES)


def test_a_tile_without_room_for_several_decodes_shares_nothing() -> None:
    case = random_case(spec(), 16, seed=0)
    tile = choose_tile("sm_90", case.spec, 16, 64, long=True)
    assert share(case.batch, Shape(3, tile.keys, tile.chunk, extra=4), 16) is None
