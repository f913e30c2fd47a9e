"""The fake accelerator itself: right where the core keeps the rules, loud where it does not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inarch_fake.attention import FakeAttention
from inarch_fake.device import FakeDevice
from inarch_fake.executor import FakeExecutor
from inarch_fake.kv import FakeKVStore
from inarch_fake.memory import DEVICE, FakeDeviceError
from torch import Tensor

from inarch.hal.attention import Attention, AttentionBatch, AttentionSpec, HostPlan, attention_facts
from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.executor import StepInputs, StepShape
from inarch.hal.experts import ExpertsSpec, ExpertWeights
from inarch.hal.kv import KVHeads, KVSpec, KVState, KVStore
from inarch.hal.op import Op
from inarch.hal.ops.activation import silu_mul
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.executor import EagerExecutor
from inarch.hal.reference.experts import ComposedExperts
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear
from inarch.hal.reference.kv import ReferenceKVStore

SPEC = AttentionSpec(4, 2, 8, 6, 0.35, torch.float32)
KV_SPEC = KVSpec((KVHeads(2, 8, 6), KVHeads(2, 8, 6)), torch.float32)


@pytest.fixture(autouse=True)
def _serving() -> Iterator[None]:
    with torch.inference_mode():
        yield


def on_host(tensor: Tensor) -> Tensor:
    return torch.from_numpy(FakeDevice().download(tensor).wait())


# ---- attention over its own pages ----


POOL = 33  # pages: eight rows of four, and the null page


def batch_of(lengths: list[int], queries: list[int]) -> AttentionBatch:
    """Sequence i has row 7 - i of the page table, whatever comes behind it."""
    return AttentionBatch(
        q_indptr=np.cumsum([0, *queries]).astype(np.int32),
        kv_lens=np.array(lengths, np.int32),
        rows=np.arange(7, 7 - len(lengths), -1, dtype=np.int32),
        page_table=1 + np.arange(32, dtype=np.int32).reshape(8, 4),
    )


def filled(store: KVStore) -> KVState:
    """Every token of every page but the null page written, the same in every layout."""
    kv = store.allocate(POOL)
    tokens = (POOL - 1) * 128
    generator = torch.Generator().manual_seed(5)
    k = torch.randn(tokens, 2, 8, generator=generator)
    v = torch.randn(tokens, 2, 6, generator=generator)
    return store.import_pages(kv, np.arange(1, POOL), [(k, v), (k, v)])


def attend(
    implementation: Attention, device: Device, kv: KVState, batch: AttentionBatch, *, lse: bool
) -> list[np.ndarray]:
    tokens = int(batch.q_indptr[-1])
    rng = np.random.default_rng(1)
    q, k, v = (
        device.upload(rng.standard_normal((tokens, heads, dim), np.float32))
        for heads, dim in ((4, 8), (2, 8), (2, 6))
    )
    result = implementation.run(1, q, k, v, kv, implementation.plan(batch).on(device), lse=lse)
    wanted = (result.out, result.lse) if result.lse is not None else (result.out,)
    return [device.download(x).wait() for x in wanted]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    queries=st.none() | st.lists(st.integers(1, 9), min_size=4, max_size=4),
    window=st.none() | st.integers(1, 300),
    lse=st.booleans(),
)
def test_attention_on_the_fake_device_equals_the_reference_on_the_cpu(
    lengths: list[int], queries: list[int] | None, window: int | None, lse: bool
) -> None:
    spec = AttentionSpec(4, 2, 8, 6, 0.35, torch.float32, window=window)
    new = [min(n, q) for n, q in zip(lengths, queries or [1] * 4, strict=False)]
    batch = batch_of(lengths, new)
    cpu, fake = ReferenceDevice(), FakeDevice()
    reference = ReferenceKVStore(KV_SPEC, 128, torch.device("cpu"))
    private = FakeKVStore(KV_SPEC, 128)
    expected = attend(
        ReferenceAttention(spec, reference, cpu), cpu, filled(reference), batch, lse=lse
    )
    got = attend(FakeAttention(spec, private, fake), fake, filled(private), batch, lse=lse)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("queries", [[1, 1, 1], [3, 1, 1]])
def test_padding_is_nan_and_stays_where_it_is(queries: list[int]) -> None:
    fake, store = FakeDevice(), FakeKVStore(KV_SPEC, 128)
    batch = batch_of([200, 130, 1], queries)
    batch.page_table[batch.rows[2]] = 0
    (out,) = attend(FakeAttention(SPEC, store, fake), fake, filled(store), batch, lse=False)
    assert np.isfinite(out[:-1]).all()
    assert np.isnan(out[-1]).all()


def test_pages_travel_between_the_private_and_the_plain_layout() -> None:
    private = FakeKVStore(KV_SPEC, 128)
    plain = ReferenceKVStore(KV_SPEC, 16, torch.device("cpu"))
    there = filled(private)
    there = [pool[:, :3].clone() for pool in there]
    data = private.export_pages(there, np.array([2, 1]))
    here = plain.import_pages(plain.allocate(17), np.arange(1, 17), data)
    back = private.allocate(3)
    back = private.import_pages(back, np.array([2, 1]), plain.export_pages(here, np.arange(1, 17)))
    for old, new in zip(there, back, strict=True):
        assert torch.equal(old.raw[:, 1:], new.raw[:, 1:])
        assert new.raw[:, 0].isnan().all()
    copied = private.copy_pages(back, np.array([1]), np.array([2]))
    assert torch.equal(copied[0].raw[:, 1], copied[0].raw[:, 2])


def test_a_page_that_changes_without_an_update_is_noticed() -> None:
    fake, store = FakeDevice(), FakeKVStore(KV_SPEC, 128)
    attention = FakeAttention(SPEC, store, fake)
    batch = batch_of([200, 130], [1, 1])
    attention.plan(batch)
    nothing = (np.empty(0, np.int32),) * 3
    changed = AttentionBatch(
        batch.q_indptr, batch.kv_lens, batch.rows, batch.page_table.copy(), page_updates=nothing
    )
    attention.plan(changed)
    changed.page_table[7, 1] = 9
    with pytest.raises(FakeDeviceError, match="row 7 of the page table changed"):
        attention.plan(changed)
    update = (np.array([7]), np.array([1]), np.array([9]))
    attention.plan(AttentionBatch(*batch_fields(changed), page_updates=update))


def batch_fields(batch: AttentionBatch) -> tuple[np.ndarray, ...]:
    return batch.q_indptr, batch.kv_lens, batch.rows, batch.page_table


# ---- capture ----


class Model:
    """One attention layer on token embeddings and positions."""

    def __init__(self, attention: Attention, device: Device) -> None:
        rng = np.random.default_rng(2)
        self.attention = attention
        self.calls = 0
        self.embedding = device.upload(rng.standard_normal((50, 16), np.float32))
        self.weight = device.upload(rng.standard_normal((4 * 8 + 2 * 8 + 2 * 6, 16), np.float32))
        self.head = device.upload(rng.standard_normal((50, 4 * 6), np.float32))

    def step(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        self.calls += 1
        x = torch.nn.functional.embedding(inputs.token_ids, self.embedding)
        x = x + inputs.positions[:, None] * 0.01
        q, k, v = (x @ self.weight.t()).split([32, 16, 12], -1)
        heads = (q.unflatten(1, (4, 8)), k.unflatten(1, (2, 8)), v.unflatten(1, (2, 6)))
        result = self.attention.run(0, *heads, kv, inputs.plans[0])
        return result.out.flatten(1)[inputs.last_token] @ self.head.t(), result.kv


class Core:
    """What a well-behaved core does with an executor, in a few lines."""

    def __init__(self, device: Device, store: KVStore, attention: Attention, executor: Any) -> None:
        self.device, self.executor, self.attention = device, executor, attention
        self.model = Model(attention, device)
        self.kv = filled(store)

    def decode(self, lengths: list[int], tokens: list[int]) -> np.ndarray:
        """Logits of one decode step of sequences whose lengths include the new token."""
        shape = self.executor.bucket(StepShape(len(tokens), len(tokens), 1))
        padding = shape.seqs - len(tokens)
        batch = batch_of(lengths + [1] * padding, [1] * shape.seqs)
        batch.page_table[batch.rows[len(tokens) :]] = 0
        logits = self.run(shape, batch, tokens + [49] * padding)
        return self.device.download(logits).wait()[: len(tokens)]

    def run(self, shape: StepShape, batch: AttentionBatch, tokens: list[int]) -> Tensor:
        batch = dataclasses.replace(batch, bucket=shape if shape.captured else None)
        plan = self.attention.plan(batch)
        inputs = {
            "token_ids": np.array(tokens),
            "positions": np.zeros(len(tokens), np.int64),
            "last_token": batch.q_indptr[1:].astype(np.int64) - 1,
        }
        there = self.executor.upload(shape, {**inputs, **plan.arrays}, plan.passing)
        given = StepInputs(*(there[name] for name in inputs), plans=(plan.bind(there),))
        logits, self.kv = self.executor.run(self.model.step, shape, given, self.kv)
        return logits


def fake_core() -> Core:
    device, store = FakeDevice(), FakeKVStore(KV_SPEC, 128)
    return Core(device, store, FakeAttention(SPEC, store, device), FakeExecutor())


def cpu_core() -> Core:
    device = ReferenceDevice()
    store = ReferenceKVStore(KV_SPEC, 128, torch.device("cpu"))
    return Core(device, store, ReferenceAttention(SPEC, store, device), EagerExecutor(device))


def test_replayed_decodes_equal_the_reference_in_every_bucket() -> None:
    fake, cpu = fake_core(), cpu_core()
    rng = np.random.default_rng(4)
    for count in (3, 1, 4, 5, 2, 8, 3, 6):
        lengths = rng.integers(1, 500, count).tolist()
        tokens = rng.integers(0, 50, count).tolist()
        expected = cpu.decode(lengths, tokens)
        np.testing.assert_allclose(fake.decode(lengths, tokens), expected, rtol=1e-4, atol=1e-4)
    assert fake.model.calls == 4, "one call for each bucket: 1, 2, 4 and 8"
    assert fake.executor.replays == 4


def test_the_logits_of_a_step_are_gone_with_the_next() -> None:
    core = fake_core()
    shape, batch = StepShape(1, 1, 1, captured=True), batch_of([5], [1])
    first = core.run(shape, batch, [3])
    core.run(StepShape(16, 8, 16, captured=True), batch_of([5] * 8, [2] * 8), [3] * 16)
    assert on_host(first).isnan().all()


def test_a_plan_that_moved_is_noticed() -> None:
    core = fake_core()
    core.decode([5], [3])
    plan = core.attention.plan

    def elsewhere(batch: AttentionBatch) -> HostPlan:
        host = plan(batch)
        bind = lambda there: host.bind({name: x.clone() for name, x in there.items()})  # noqa: E731
        return dataclasses.replace(host, bind=bind)

    core.attention.plan = elsewhere  # type: ignore[method-assign]
    with pytest.raises(FakeDeviceError, match="a plan moved"):
        core.decode([6], [3])


def test_arrays_of_a_captured_shape_that_change_their_size_are_noticed() -> None:
    executor, shape = FakeExecutor(), StepShape(1, 1, 1, captured=True)
    executor.upload(shape, {"slots": np.zeros(3)}, {})
    with pytest.raises(FakeDeviceError, match="not those of its first step"):
        executor.upload(shape, {"slots": np.zeros(4)}, {})


def test_what_passes_is_gone_with_the_next_step() -> None:
    executor, shape = FakeExecutor(), StepShape(1, 1, 1, captured=True)
    passing = executor.upload(shape, {}, {"temperature": np.zeros(3, np.float32)})["temperature"]
    executor.upload(shape, {}, {})
    assert on_host(passing).isnan().all()


def test_a_kv_state_that_moved_is_noticed() -> None:
    core = fake_core()
    core.decode([5], [3])
    core.kv = list(core.kv)
    with pytest.raises(FakeDeviceError, match="KV state moved"):
        core.decode([6], [3])


def test_another_step_than_the_captured_one_is_noticed() -> None:
    core = fake_core()
    core.decode([5], [3])
    core.model = Model(core.attention, core.device)
    with pytest.raises(FakeDeviceError, match="another step function"):
        core.decode([6], [3])


def test_inputs_that_were_not_padded_are_noticed() -> None:
    core = fake_core()
    with pytest.raises(FakeDeviceError, match="is no bucket"):
        core.run(StepShape(3, 3, 1), batch_of([5] * 3, [1] * 3), [3] * 3)
    with pytest.raises(FakeDeviceError, match="were said to be"):
        core.run(StepShape(4, 4, 1, captured=True), batch_of([5] * 3, [1] * 3), [3] * 3)


def test_an_upload_within_a_captured_step_is_noticed() -> None:
    core = fake_core()

    def step(inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        logits, kv = Model.step(core.model, inputs, kv)
        return logits + core.device.upload(np.zeros(1, np.float32)), kv

    core.model.step = step  # type: ignore[method-assign]
    with pytest.raises(FakeDeviceError, match="comes before a step"):
        core.decode([5], [3])


def test_steps_with_several_query_tokens_are_padded_by_whole_sequences() -> None:
    bucket = FakeExecutor().bucket
    assert bucket(StepShape(70, 4, 66)) == StepShape(80, 6, 66)
    assert bucket(StepShape(9, 4, 5)) == StepShape(16, 8, 16, captured=True)
    assert bucket(StepShape(5, 5, 1)) == StepShape(8, 8, 1, captured=True)


# ---- as the core meets it ----


def test_it_is_found_like_any_installed_plugin_without_importing_torch() -> None:
    folder = Path(__file__).parent
    installed = metadata.distributions(path=[str(folder / "installed")])
    found = [e for distribution in installed for e in distribution.entry_points]
    assert [(e.group, e.name, e.value) for e in found] == [("inarch", "fake", "inarch_fake.plugin")]
    code = (
        "import sys, inarch_fake.plugin as p; b, = p.inarch_backends();"
        "assert b.name == 'fake' and b.probe().score and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(folder)})


def test_its_kernel_is_chosen_and_what_it_refuses_falls_back_on_the_same_device() -> None:
    device, store = FakeDevice(), FakeKVStore(KV_SPEC, 128)
    dispatcher = Dispatcher(device.kernels())

    def chosen(spec: AttentionSpec) -> Any:
        facts = attention_facts(spec, store)
        return dispatcher.select("attention", ReferenceAttention, **facts)(spec, store, device)

    assert isinstance(chosen(SPEC), FakeAttention)
    capped = AttentionSpec(4, 2, 8, 6, 0.35, torch.float32, softcap=2.0)
    fallback = chosen(capped)
    assert isinstance(fallback, ReferenceAttention)
    assert dispatcher.choices[-1].rejected == (("fake", "no soft-cap"),)
    core = Core(device, store, fallback, FakeExecutor())
    plain = ReferenceKVStore(KV_SPEC, 128, torch.device("cpu"))
    cpu = ReferenceDevice()
    expected = Core(cpu, plain, ReferenceAttention(capped, plain, cpu), EagerExecutor(cpu))
    for lengths in ([5, 140, 9], [6, 141, 10]):
        np.testing.assert_allclose(
            core.decode(lengths, [1, 2, 3]),
            expected.decode(lengths, [1, 2, 3]),
            rtol=1e-4,
            atol=1e-4,
        )
    assert core.model.calls == 2, "not captured: the reference's plans have no fixed addresses"


def test_every_reference_op_runs_on_it() -> None:
    from inarch.hal.ops import sampling

    rows = torch.ones(3, device=DEVICE)
    logits = FakeDevice().upload(np.random.default_rng(0).standard_normal((3, 9), np.float32))
    counts = torch.zeros(3, 9, dtype=torch.int32, device=DEVICE)
    ids = torch.zeros(3, dtype=torch.int64, device=DEVICE)
    calls: list[tuple[Op[..., Any], tuple[Any, ...]]] = [
        (sampling.greedy, (logits,)),
        (sampling.sample, (logits, rows, rows.int() * 4, rows * 0.9, rows * 0.1, rows * 0.3)),
        (sampling.penalize, (logits, ids, counts > 0, counts, rows, rows, rows)),
        (sampling.count_tokens, (counts, ids, ids)),
        (sampling.add_bias, (logits, ids, ids, rows)),
        (sampling.logprobs, (logits, ids, 2)),
    ]
    for op, args in calls:
        on_cpu = op(*(x.raw.clone() if isinstance(x, Tensor) else x for x in args))
        on_fake = op(*args)
        for ours, theirs in zip(_flat(on_fake), _flat(on_cpu), strict=True):
            torch.testing.assert_close(on_host(ours), theirs)


def _flat(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def test_experts_of_the_reference_run_on_it_though_the_host_must_know_their_rows() -> None:
    spec = ExpertsSpec(experts=5, top_k=2, hidden=12, intermediate=7, dtype=torch.float32)
    draw = torch.Generator().manual_seed(3)
    gate_up, down = (torch.randn(5, *size, generator=draw) for size in ((14, 12), (12, 7)))
    x, shares = torch.randn(9, 12, generator=draw), torch.rand(9, 2, generator=draw)
    chosen = torch.stack([torch.randperm(5, generator=draw)[:2] for _ in range(9)])

    def run(device: Device) -> Tensor:
        linear = ReferenceGroupedLinear()
        layer = ComposedExperts(linear, linear, silu_mul, device)
        there = [device.upload(part.numpy()) for part in (x, chosen, shares, gate_up, down)]
        packed = layer.prepack(spec, ExpertWeights(*there[3:]))
        return torch.from_numpy(device.download(layer.apply(*there[:3], packed)).wait())

    torch.testing.assert_close(run(FakeDevice()), run(ReferenceDevice()))
