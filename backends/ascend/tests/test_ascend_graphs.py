"""NPU graphs: a replay has the lengths of its own step, in the order that the hardware needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inarch.hal import graphs
from inarch.hal.attention import AttentionBatch, AttentionSpec
from inarch.hal.device import Device, Transfer
from inarch.hal.executor import StepInputs, StepShape
from inarch.hal.kv import KVState

from .batches import BLOCK, batch, filled, inputs, kv_spec, reference

SPEC = AttentionSpec(4, 2, 128, 128, scale=0.09, dtype=torch.bfloat16)


class Decoder:
    """Two layers of attention over the same pages: enough of a model for an executor."""

    def __init__(self, device: Device) -> None:
        from inarch_ascend.attention import FusedInferAttention

        self.device = device
        self.executor: Any = device.executor()
        self.store: Any = device.kv_store(kv_spec(SPEC), BLOCK)
        self.attention = FusedInferAttention(SPEC, self.store, device)
        self.kv = filled(self.store, SPEC, device)
        self.tensors = [x.to(device.torch_device) for x in inputs(SPEC, 8)]
        self.steps = 0

    def step(self, given: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        self.steps += 1
        (plan,) = given.plans
        tensors = [x[: len(given.token_ids)] for x in self.tensors]
        first = self.attention.run(0, *tensors, kv, plan).out
        second = self.attention.run(0, *tensors, kv, plan).out
        return (first + second).float() / 2, kv

    def run(self, decodes: AttentionBatch) -> np.ndarray:
        """What one step gives over pages that are as they were before the first."""
        return self.launch(decodes).wait()

    def launch(self, decodes: AttentionBatch) -> Transfer:
        filled(self.store, SPEC, self.device, self.kv)
        shape = decodes.bucket
        assert shape is not None
        plan = self.attention.plan(decodes)
        some = np.zeros(shape.seqs, np.int64)
        named = {"token_ids": some, "positions": some, "last_token": some}
        there = self.executor.upload(shape, {**named, **plan.arrays}, plan.passing)
        given = StepInputs(*(there[name] for name in named), plans=(plan.bind(there),))
        out, _ = self.executor.run(self.step, shape, given, self.kv)
        return self.device.download(out)


def expected(decodes: AttentionBatch) -> np.ndarray:
    tensors = tuple(x[: len(decodes.kv_lens)] for x in inputs(SPEC, 8))
    return reference(SPEC, decodes, tensors).out.float().numpy()


def decodes(*prefixes: int, seed: int = 0) -> AttentionBatch:
    return batch([1] * len(prefixes), prefixes, seed, bucket=4)


def test_replays_attend_with_the_lengths_and_the_pages_of_their_own_step(npu: Device) -> None:
    decoder = Decoder(npu)
    steps = [decodes(5, 200, 130), decodes(6, 201, 131), decodes(300, 1, 0, 77, seed=1), decodes(9)]
    for number, each in enumerate(steps):
        real = int((each.page_table[:, 0] > 0).sum())
        np.testing.assert_allclose(
            decoder.run(each)[:real],
            expected(each)[:real],
            rtol=0.02,
            atol=0.01,
            err_msg=str(number),
        )
    assert decoder.executor.captured == 1
    assert decoder.steps == 2, "once as it comes and once captured: replays call nothing"


def test_what_is_too_much_for_the_memory_that_shapes_share_has_its_own(
    npu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page table of a context of a million tokens is."""
    monkeypatch.setattr(graphs, "INPUT_BYTES", 64)
    decoder = Decoder(npu)
    for each in (decodes(5, 200), decodes(90, 300)):
        found = decoder.run(each)
        np.testing.assert_allclose(found[:2], expected(each)[:2], rtol=0.02, atol=0.01)
    assert decoder.executor.captured == 1


def test_a_replay_that_is_not_updated_waits_forever(
    npu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inarch_ascend import recorder
    from inarch_ascend.simulation.memory import NPUError, machine

    decoder = Decoder(npu)
    decoder.run(decodes(5, 200))
    monkeypatch.setattr(recorder, "host_updates", lambda _: None)
    with pytest.raises(NPUError, match="waits for an update"):
        decoder.run(decodes(6, 201))
    machine.waiting = None


def test_stale_lengths_give_another_answer(npu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test of replays would see if an update brought the lengths of the step before."""
    from inarch_ascend import recorder

    decoder, fresh = Decoder(npu), recorder.host_updates
    decoder.run(decodes(5, 200))
    stale = {"actual_seq_qlen": [1, 2, 3, 4], "actual_seq_kvlen": [6, 201, 1, 1]}
    monkeypatch.setattr(recorder, "host_updates", lambda _: stale)
    found = decoder.run(decodes(90, 300))
    assert not np.allclose(found[:2], expected(decodes(90, 300))[:2], rtol=0.02, atol=0.01)
    monkeypatch.setattr(recorder, "host_updates", fresh)
    found = decoder.run(decodes(90, 300))
    np.testing.assert_allclose(found[:2], expected(decodes(90, 300))[:2], rtol=0.02, atol=0.01)


def test_steps_may_be_launched_before_the_last_one_is_read(npu: Device) -> None:
    decoder = Decoder(npu)
    steps = [decodes(5, 200), decodes(90, 300), decodes(6, 201)]
    transfers = [decoder.launch(each) for each in (steps[0], *steps)]
    for each, transfer in zip(steps, transfers[1:], strict=True):
        np.testing.assert_allclose(transfer.wait()[:2], expected(each)[:2], rtol=0.02, atol=0.01)


def test_a_graph_must_not_be_updated_while_its_last_replay_may_run(npu: Device) -> None:
    """The rule of the simulation that the executor's wait keeps."""
    from inarch_ascend.simulation.memory import NPUError, machine

    decoder = Decoder(npu)
    for _ in range(2):
        decoder.launch(decodes(5, 200))
    decoder.executor._recorder._replayed.synchronize = lambda: None
    with pytest.raises(NPUError, match="last replay may still run"):
        decoder.launch(decodes(7, 202))
    machine.intercept = machine.waiting = None
    npu.synchronize()


def test_memory_that_moved_is_not_replayed(npu: Device) -> None:
    decoder = Decoder(npu)
    decoder.run(decodes(5, 200))
    decoder.kv = filled(decoder.store, SPEC, npu)
    with pytest.raises(RuntimeError, match="the KV state is another"):
        decoder.run(decodes(6, 201))


def test_a_step_whose_capture_finds_no_memory_runs_as_it_comes(
    npu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(npu)
    as_it_comes = decoder.step

    def full(given: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        if decoder.steps == 1:
            decoder.steps += 1
            raise torch.OutOfMemoryError("NPU out of memory")
        return as_it_comes(given, kv)

    monkeypatch.setattr(decoder, "step", full)
    for each in (decodes(5, 200), decodes(90, 300)):
        found = decoder.run(each)
        np.testing.assert_allclose(found[:2], expected(each)[:2], rtol=0.02, atol=0.01)
    assert decoder.executor.captured == 0
    assert decoder.steps == 3, "as it comes, captured in vain, as it comes"


def test_decodes_alone_are_padded_and_captured(npu: Device) -> None:
    executor: Any = npu.executor()
    assert executor.bucket(StepShape(5, 5, 1)) == StepShape(8, 8, 1, captured=True)
    for shape in (StepShape(5, 3, 3), StepShape(257, 257, 1)):
        assert executor.bucket(shape) == shape
    most = StepShape(512, 20, 512)
    assert executor.unprepared(most) == StepShape(1, 1, 1, captured=True)
    assert executor.kept(most).shape == StepShape(24, 24, 1)


def test_plans_that_differ_in_their_lengths_are_a_fault(npu: Device) -> None:
    from inarch_ascend.attention import Plan
    from inarch_ascend.recorder import host_updates

    some = npu.upload(np.zeros(2, np.int64))
    plans = (Plan(some, some, [1, 2], [5, 6]), Plan(some, some, [1, 2], [5, 7]))
    with pytest.raises(RuntimeError, match="differ in their lengths"):
        host_updates(StepInputs(some, some, some, plans))
