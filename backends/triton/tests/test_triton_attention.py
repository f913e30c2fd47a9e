"""The attention kernel against the reference in float32, over pages that are NaN where none wrote."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, not with this one")

from inarch.hal.attention import (
    AttentionBatch,
    AttentionResult,
    AttentionSpec,
    HostPlan,
    Rotation,
)
from inarch.hal.executor import StepShape
from inarch.hal.kv import KVHeads, KVSpec, KVState
from inarch.hal.ops.rotary import rope
from inarch.hal.packing import upload
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore
from inarch_triton import attention_launch
from inarch_triton.attention import Plan, TritonAttention
from inarch_triton.fnuz import FNUZ, from_fnuz
from inarch_triton.kv import paged_store
from inarch_triton.rotary import rope as our_rope

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
GPU = torch.accelerator.is_available()
HOPPER = GPU and torch.cuda.get_device_capability() == (9, 0) and torch.version.hip is None


def spec(**changes: object) -> AttentionSpec:
    plain = AttentionSpec(4, 2, 16, 16, 0.3, torch.float32)
    return dataclasses.replace(plain, **changes)


@dataclass
class Case:
    """A batch with its inputs on the host; sequences are (cached prefix, parents of new tokens)."""

    spec: AttentionSpec
    batch: AttentionBatch
    page_tokens: int
    pages: int
    history: list[tuple[Tensor, Tensor, Tensor]]  # slots, k, v
    q: Tensor
    k: Tensor
    v: Tensor
    sinks: Tensor | None
    stored: torch.dtype | None = None  # of the pages, if not the one that is computed in

    def reference(self) -> AttentionResult:
        wide = dataclasses.replace(self.spec, dtype=torch.float32)
        pages = self.kv_spec(self.stored or torch.float32)
        store = ReferenceKVStore(pages, self.page_tokens, torch.device("cpu"))
        oracle = ReferenceAttention(wide, store, ReferenceDevice())
        inputs = (x.float() for x in (self.q, self.k, self.v))
        kv = self.fill(store)
        plan = oracle.plan(self.batch).on(ReferenceDevice())
        return oracle.run(0, *inputs, kv, plan, sinks=self.sinks, lse=True)

    def kv_spec(self, dtype: torch.dtype) -> KVSpec:
        return KVSpec((KVHeads(self.spec.kv_heads, self.spec.key_dim, self.spec.value_dim),), dtype)

    def fill(self, store: ReferenceKVStore) -> KVState:
        kv = store.allocate(self.pages)
        for part in kv[0]:
            part.fill_(torch.nan)
        for slots, k, v in self.history:
            if len(slots):
                kv = store.write(kv, 0, *(x.to(kv[0][0].device) for x in (slots, k, v)))
        return kv

    def attention(self, device) -> tuple[TritonAttention, KVState]:
        pages = self.kv_spec(self.stored or self.spec.dtype)
        store = paged_store(device.info.arch, pages, self.page_tokens, device.torch_device)
        return TritonAttention(self.spec, store, device), self.fill(store)

    def inputs(self, device) -> tuple[Tensor, ...]:
        return tuple(x.to(device.torch_device) for x in (self.q, self.k, self.v))


def chain(length: int) -> list[int]:
    return list(range(-1, length - 1))


def build(
    spec: AttentionSpec, sequences: list[tuple[int, list[int]]], page_tokens: int, *, tree: bool
) -> Case:
    rng = np.random.default_rng(len(sequences))

    def normal(*shape: int, dtype: torch.dtype = spec.dtype) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape, np.float32)).to(dtype)

    queries = [len(parents) for _, parents in sequences]
    lengths = [prefix + n for (prefix, _), n in zip(sequences, queries, strict=True)]
    counts = [-(-n // page_tokens) for n in lengths]
    rows = rng.permutation(len(sequences) + 2)[: len(sequences)]
    table = np.full((len(sequences) + 2, max(counts) + 1), 1 << 30, np.int32)  # no page at all
    free = 1 + rng.permutation(sum(counts) + 3)
    history = []
    for row, count, (prefix, _) in zip(rows, counts, sequences, strict=True):
        table[row, :count], free = free[:count], free[count:]
        place = np.arange(prefix)
        slots = table[row, place // page_tokens] * np.int64(page_tokens) + place % page_tokens
        k = normal(prefix, spec.kv_heads, spec.key_dim)
        v = normal(prefix, spec.kv_heads, spec.value_dim)
        history.append((torch.from_numpy(slots), k, v))
    batch = AttentionBatch(
        q_indptr=np.cumsum([0, *queries]).astype(np.int32),
        kv_lens=np.array(lengths, np.int32),
        rows=rows.astype(np.int32),
        page_table=table,
        tree_parent=np.concatenate([p for _, p in sequences]).astype(np.int32) if tree else None,
    )
    tokens = sum(queries)
    heads = spec.q_heads + 2 * spec.kv_heads  # as a projection gives them: parts of one tensor
    wide = normal(tokens, heads, max(spec.key_dim, spec.value_dim))
    q, k, v = wide.split([spec.q_heads, spec.kv_heads, spec.kv_heads], 1)
    return Case(
        spec, batch, page_tokens, sum(counts) + 4, history,
        q[..., : spec.key_dim], k[..., : spec.key_dim], v[..., : spec.value_dim],
        normal(spec.q_heads, dtype=torch.float32) if spec.sinks else None,
    )  # fmt: skip


def check(case: Case, device, *, lse: bool) -> None:
    expected = case.reference()
    ours, kv = case.attention(device)
    sinks = None if case.sinks is None else case.sinks.to(device.torch_device)
    plan = ours.plan(case.batch).on(device)
    got = ours.run(0, *case.inputs(device), kv, plan, sinks=sinks, lse=lse)
    tolerance = TOLERANCE[case.spec.dtype]
    assert got.out.dtype == case.spec.dtype
    out = got.out.float().cpu()
    torch.testing.assert_close(out, expected.out, rtol=tolerance, atol=tolerance)
    assert (got.lse is not None) == lse
    if got.lse is not None:
        close = {"rtol": 2e-5, "atol": 2e-5 if case.spec.dtype == torch.float32 else 2e-3}
        torch.testing.assert_close(got.lse.cpu(), expected.lse, **close)
    for part, theirs in zip(got.kv[0], expected.kv[0], strict=True):
        written = (from_fnuz(part) if part.dtype == FNUZ else part).float().cpu()[1:]
        torch.testing.assert_close(written, theirs[1:].float(), rtol=0, atol=0, equal_nan=True)


DECODES = [(39, chain(1)), (299, chain(1)), (0, chain(1))]
MIXED = [(50, chain(1)), (130, chain(40)), (20, chain(3)), (0, chain(33))]
TREE = [-1, 0, 0, 1, -1, 4, 4, 2, 3]
TREES = [(37, TREE), (200, [-1, 0, 0, 1]), (0, chain(2)), (64, TREE[:5])]

CASES = {
    "decodes of very different lengths": (spec(), DECODES, 16),
    "a mixed batch over small pages": (spec(), MIXED, 16),
    "a mixed batch over large pages": (spec(), MIXED, 128),
    "float16": (spec(dtype=torch.float16), MIXED, 64),
    "bfloat16": (spec(dtype=torch.bfloat16), MIXED, 64),
    "head sizes that are no power of two": (spec(key_dim=24, value_dim=12), MIXED, 32),
    "small head sizes in 16 bits": (
        spec(key_dim=24, value_dim=12, dtype=torch.bfloat16),
        MIXED,
        32,
    ),
    "head sizes that are multiples of 16": (spec(key_dim=80, value_dim=48), MIXED, 32),
    "a group of three heads": (spec(q_heads=6), MIXED, 16),
    "every head its own keys": (spec(q_heads=2), DECODES[:2], 16),
    "window": (spec(window=30), MIXED, 16),
    "window over chunks": (spec(window=250), DECODES[:2], 16),
    "soft-cap": (spec(softcap=1.5), MIXED[1:3], 16),
    "sinks": (spec(sinks=True), [(300, chain(1)), *MIXED[1:3]], 16),
    "everything": (spec(window=45, softcap=2.0, sinks=True), MIXED, 16),
    "short chains for verification": (
        spec(q_heads=2, kv_heads=1),
        [(62, chain(4)), (20, chain(4))],  # the first query's keys end one before a block does
        16,
    ),
}
REAL = {"q_heads": 32, "kv_heads": 8, "scale": 0.09, "dtype": torch.bfloat16}
GPU_CASES = {
    f"{kind}, head size {dim}, {dtype}, pages of {page}": (
        spec(**REAL | {"key_dim": dim, "value_dim": dim, "dtype": dtype}), sequences, page,
    )
    for kind, sequences in (
        ("decode", [(n, chain(1)) for n in (8191, 1, 1000, 77)]),
        ("mixed", [(500, chain(1)), (0, chain(1024)), (3000, chain(700)), (20, chain(20))]),
    )
    for dim in (64, 80, 96, 128, 192, 256)
    for dtype, page in ((torch.bfloat16, 16), (torch.bfloat16, 64), (torch.float16, 128),
                        (torch.float32, 16))
}  # fmt: skip


PROMPTS = {
    "one block": [(0, 17)],
    "of any length": [(0, 17), (333, 100), (4000, 1), (1, 512), (64, 33), (2047, 129), (0, 700)],
    "over long prefixes, in chunks": [(5000, 300), (3001, 64), (1, 17)],
}
SPECIALIZED = {
    "bfloat16": {},
    "float16": {"dtype": torch.float16},
    "head size 64": {"key_dim": 64, "value_dim": 64},
    "a group of seven heads": {"q_heads": 14},
    "every head its own keys": {"q_heads": 2},
}


@pytest.mark.parametrize("name", [*CASES, *(GPU_CASES if GPU else ())])
def test_attention_equals_the_reference(name: str, device) -> None:
    what, sequences, page_tokens = (CASES | GPU_CASES)[name]
    check(build(what, sequences, page_tokens, tree=False), device, lse=name != "float16")


@pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU: no interpreter plays its warps")
@pytest.mark.parametrize("kind", SPECIALIZED)
@pytest.mark.parametrize("prompts", PROMPTS)
def test_specialized_warps_attend_to_prompts(prompts: str, kind: str, device) -> None:
    hopper = REAL | {"q_heads": 8, "kv_heads": 2, "key_dim": 128, "value_dim": 128}
    sequences = [(prefix, chain(tokens)) for prefix, tokens in PROMPTS[prompts]]
    case = build(spec(**hopper | SPECIALIZED[kind]), sequences, 64, tree=False)
    launch = case.attention(device)[0].plan(case.batch).on(device).launches[-1]
    assert launch.tile.specialized
    assert "chunks" not in prompts or (launch.jobs[:, 3] > 1).any()
    check(case, device, lse=True)


OVER_FP8 = [
    "decodes of very different lengths", "a mixed batch over small pages",
    "a mixed batch over large pages", "head sizes that are multiples of 16", "everything",
]  # fmt: skip


def over(pages: torch.dtype, case: Case) -> Case:
    """The interpreter of Triton rounds to 8 bits wrongly: it is spared what has to be rounded."""
    case.stored = pages
    if not GPU:
        for x in (case.k, case.v, *(x for _, *kv in case.history for x in kv)):
            x.copy_(x.to(pages))
    return case


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", OVER_FP8)
def test_attention_computes_with_what_fp8_pages_hold(
    name: str, dtype: torch.dtype, device, fp8: torch.dtype
) -> None:
    what, sequences, page_tokens = CASES[name]
    case = build(dataclasses.replace(what, dtype=dtype), sequences, page_tokens, tree=False)
    check(over(fp8, case), device, lse=True)


@pytest.mark.skipif(not GPU, reason="at real sizes, and of values that are rounded: needs a GPU")
@pytest.mark.parametrize("name", [name for name in GPU_CASES if "float32" not in name])
def test_attention_over_fp8_pages_at_real_sizes(name: str, device, fp8: torch.dtype) -> None:
    what, sequences, page_tokens = GPU_CASES[name]
    check(over(fp8, build(what, sequences, page_tokens, tree=False)), device, lse=True)


def test_a_tree_may_be_verified_over_fp8_pages(device, fp8: torch.dtype) -> None:
    check(over(fp8, build(spec(window=100), TREES, 16, tree=True)), device, lse=True)


def test_a_long_decode_is_cut_into_more_chunks_than_are_merged_at_once(
    device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_launch, "MERGED", 4)
    case = build(spec(q_heads=2, kv_heads=1), [(700, chain(1))], 64, tree=False)
    case.k[-1] = 3 * case.q[-1, :1]  # the last chunk weighs more than all before it
    check(case, device, lse=True)


@pytest.mark.parametrize("with_sinks", [False, True])
def test_every_long_decode_of_a_batch_is_merged_from_its_own_chunks(
    with_sinks: bool, device
) -> None:
    sequences = [(900, chain(1)), (700, chain(1)), (40, chain(1))]
    case = build(spec(sinks=with_sinks), sequences, 16, tree=False)
    check(case, device, lse=True)
    ours, _ = case.attention(device)
    items = ours.plan(case.batch).arrays["short_items"]
    assert GPU or len(set(items[items[:, 6] >= 0, 10])) == 2, "two are cut"


@pytest.mark.parametrize("window", [None, 3, 100])
def test_a_tree_sees_its_prefix_its_ancestors_and_itself(window: int | None, device) -> None:
    check(build(spec(window=window), TREES, 16, tree=True), device, lse=True)


def test_a_tree_may_come_with_a_long_chain_but_may_not_be_long_itself(device) -> None:
    case = build(spec(), [(30, TREE), (10, chain(70))], 16, tree=True)
    check(case, device, lse=False)
    case.batch.tree_parent[-1] = 5
    with pytest.raises(ValueError, match="70 drafted tokens: the most is 64"):
        case.attention(device)[0].plan(case.batch)


class Buffers:
    """The arrays of one bucket at one place, as a captured step has them."""

    def __init__(self, device) -> None:
        self._device = device
        self._there: dict[str, Tensor] = {}

    def bring(self, plan: HostPlan) -> Plan:
        arrays = {name: self._device.upload(array) for name, array in plan.arrays.items()}
        self._there = self._there or arrays
        assert arrays.keys() == self._there.keys()
        for name, array in arrays.items():
            assert (self._there[name].shape, self._there[name].dtype) == (array.shape, array.dtype)
            self._there[name].copy_(array)
        return plan.bind({**self._there, **upload(self._device, plan.passing)})


def padded_to(bucket: StepShape, case: Case) -> Case:
    """With the padding of the core, whose keys and values are NaN, and a table of one size."""
    batch, tokens = case.batch, len(case.q)
    extra, spare = bucket.seqs - len(batch.kv_lens), bucket.tokens - tokens
    lengths = np.zeros(extra, np.int32)
    lengths[:spare] = 1
    lengths[-1:] += max(spare - extra, 0)
    table = np.full((12, 40), 1 << 30, np.int32)
    table[-1] = 0
    table[: len(batch.page_table), : batch.page_table.shape[1]] = batch.page_table
    ends = batch.q_indptr[-1] + np.cumsum(lengths)
    whole = AttentionBatch(
        np.concatenate((batch.q_indptr, ends)).astype(np.int32),
        np.concatenate((batch.kv_lens, lengths)),
        np.concatenate((batch.rows, np.full(extra, 11, np.int32))),
        table,
        bucket=bucket,
    )
    q, k, v = (
        torch.cat((x, x.new_full((spare, *x.shape[1:]), torch.nan)))
        for x in (case.q, case.k, case.v)
    )
    return dataclasses.replace(case, batch=whole, q=q, k=k, v=v)


DECODE = [(300, chain(1)), (40, chain(1)), (0, chain(1)), (90, chain(1))]
BUCKETS = {
    "decodes": (StepShape(4, 4, 1), [DECODE, DECODE[:2], DECODE[2:]]),
    "verification": (StepShape(12, 4, 3), [[(30, chain(3))] * 4, [(300, chain(3)), (8, chain(2))]]),
    "prompts and decodes": (
        StepShape(64, 8, 64),
        [
            [(0, chain(40))],
            [(300, chain(1)), (20, chain(3)), (130, chain(20)), (0, chain(33))],
            [(17, chain(1)), (64, chain(1)), (0, chain(62))],
            [(9, chain(8))] * 8,
        ],
    ),
}


@pytest.mark.parametrize("window", [None, 30])
@pytest.mark.parametrize("name", BUCKETS)
def test_all_batches_of_a_bucket_go_through_the_same_buffers_and_grids(
    name: str, window: int | None, device
) -> None:
    bucket, batches = BUCKETS[name]
    buffers, ours, seen = Buffers(device), None, set()
    for sequences in batches:
        plain = build(spec(window=window), sequences, 16, tree=False)
        case = padded_to(bucket, plain)
        fresh, kv = case.attention(device)
        ours = ours or fresh
        plan = buffers.bring(ours.plan(case.batch))
        grids = ((launch.items.shape, launch.jobs.shape, launch.tile) for launch in plan.launches)
        seen.add((plan.addresses, *grids))
        got = ours.run(0, *case.inputs(device), kv, plan)
        tokens = len(plain.q)
        torch.testing.assert_close(
            got.out[:tokens].cpu(), plain.reference().out, rtol=2e-5, atol=2e-5
        )
    assert len(seen) == 1


def test_steps_that_run_as_they_come_share_one_tile_for_all_their_decodes(device) -> None:
    """Another tile would be compiled while requests wait."""
    compiled = set()
    for decodes, short_chunk in ((1, 0), (6, 0), (6, 3), (20, 0), (40, 5)):
        sequences = [(30, chain(1))] * decodes + [(0, chain(40))]
        sequences += [(5, chain(short_chunk))] if short_chunk else []
        case = build(spec(), sequences, 16, tree=False)
        ours, _ = case.attention(device)
        launch = ours.plan(case.batch).on(device).launches[0]
        compiled.add((launch.tile, launch.tile_tokens, launch.merged_rows))
    assert len(compiled) == 1


def test_the_attention_of_padding_costs_nothing(device) -> None:
    case = padded_to(StepShape(64, 8, 64), build(spec(), [(0, chain(20))], 16, tree=False))
    plan = case.attention(device)[0].plan(case.batch)
    for name in ("short", "long"):
        items = plan.arrays[f"{name}_items"]
        assert items[:, 2].sum() == (20 if name == "long" else 0)


def test_the_page_table_on_the_device_follows_the_updates_alone(device) -> None:
    case = build(spec(), [(100, chain(1)), (40, chain(1))], 16, tree=False)
    ours, kv = case.attention(device)
    right = case.batch.page_table
    stale = right.copy()
    row = case.batch.rows[0]
    stale[row, 2:5] = 0
    ours.plan(dataclasses.replace(case.batch, page_table=stale)).on(device)
    updates = (np.full(4, row), np.array([2, 3, 3, 4]), right[row, [2, 1, 3, 4]])
    plan = ours.plan(dataclasses.replace(case.batch, page_updates=updates)).on(device)
    np.testing.assert_array_equal(plan.table.cpu().numpy(), right)
    got = ours.run(0, *case.inputs(device), kv, plan)
    torch.testing.assert_close(got.out.cpu(), case.reference().out, rtol=2e-5, atol=2e-5)


def test_a_plan_has_copied_what_it_keeps(device) -> None:
    case = build(spec(), MIXED[1:3], 16, tree=False)
    expected = case.reference().out
    ours, kv = case.attention(device)
    plan = ours.plan(case.batch)
    for array in (case.batch.q_indptr, case.batch.kv_lens, case.batch.rows, case.batch.page_table):
        array[:] = 0
    got = ours.run(0, *case.inputs(device), kv, plan.on(device))
    torch.testing.assert_close(got.out.cpu(), expected, rtol=2e-5, atol=2e-5)


def test_padding_reads_the_null_page_and_disturbs_nobody(device) -> None:
    case = build(spec(), [(20, chain(1)), (0, chain(1)), (0, chain(5))], 16, tree=False)
    case.batch.page_table[case.batch.rows[1:]] = 0
    case.k[1:], case.v[1:] = torch.nan, torch.nan
    ours, kv = case.attention(device)
    before = [part.clone() for part in kv[0]]
    got = ours.run(0, *case.inputs(device), kv, ours.plan(case.batch).on(device))
    torch.testing.assert_close(got.out[:1].cpu(), case.reference().out[:1], rtol=2e-5, atol=2e-5)
    for part, old in zip(kv[0], before, strict=True):
        assert part[1:].isfinite().sum() == old[1:].isfinite().sum() + part[0, 0].numel()


@pytest.mark.parametrize("turn", [our_rope, rope], ids=["fused", "of another backend"])
def test_queries_and_keys_are_rotated_before_they_are_attended_with(turn, device) -> None:
    case = build(spec(), MIXED, 16, tree=False)
    ours, kv = case.attention(device)
    positions = torch.from_numpy(query_positions(case.batch))
    table = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    place, (q, k, v) = device.torch_device, case.inputs(device)
    case.q, case.k = rope(case.q, case.k, positions, table)
    rotation = Rotation(turn, positions.to(place), table.to(place))
    got = ours.run(
        0, q.clone(), k.clone(), v, kv, ours.plan(case.batch).on(device), rotation=rotation
    )
    expected = case.reference()
    torch.testing.assert_close(got.out.cpu(), expected.out, rtol=2e-5, atol=2e-5)
    for part, theirs in zip(got.kv[0], expected.kv[0], strict=True):
        close = {"rtol": 1e-5, "atol": 1e-5, "equal_nan": True}
        torch.testing.assert_close(part.cpu()[1:], theirs[1:], **close)


def query_positions(batch: AttentionBatch) -> np.ndarray:
    queries = np.diff(batch.q_indptr)
    ends = np.repeat(batch.kv_lens - batch.q_indptr[1:], queries)
    return (np.arange(len(ends)) + ends).astype(np.int64)
