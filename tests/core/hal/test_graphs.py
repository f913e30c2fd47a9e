"""Steps as graphs: what is captured, and what happens when the device's memory runs out meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from inarch.hal.executor import Kept, StepInputs, StepShape
from inarch.hal.graphs import GraphExecutor, GraphShapes, addresses_of

SMALL, LARGE = (StepShape(n, n, 1, captured=True) for n in (1, 8))
AS_IT_COMES = StepShape(4096, 3, 4000)
SHAPES = GraphShapes(lambda shape: shape, lambda most: (SMALL, LARGE), graph_bytes=100)
KV = object()


@dataclass(frozen=True)
class Plan:
    addresses: tuple[int, ...] | None = (1,)


@dataclass(frozen=True)
class Repeat:
    work: Callable[[], Tensor]

    def replay(self, inputs: StepInputs) -> Tensor:
        return self.work()


class Recordings:
    """Plays graphs on the CPU: there is room for so many, or none any more."""

    def __init__(self, room: int, error: RuntimeError | None = None) -> None:
        self.room, self.reclaimed = room, 0
        self._error = error or torch.OutOfMemoryError("Out of memory.")

    def record(self, work: Callable[[], Tensor]) -> Repeat:
        if not self.room:
            raise self._error
        self.room -= 1
        return Repeat(work)

    def reclaim(self) -> None:
        self.reclaimed += 1


def executor_on(recordings: Recordings) -> GraphExecutor:
    return GraphExecutor(torch.device("cpu"), recordings, SHAPES)


def inputs(tokens: int) -> StepInputs:
    ids = torch.arange(tokens)
    return StepInputs(ids, ids.clone(), ids.clone(), (Plan(),))


def double(given: StepInputs, kv: object) -> tuple[Tensor, object]:
    return 2.0 * given.token_ids, kv


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("out of memory. Tried to allocate 20 MiB."),
        RuntimeError("Driver error: out of memory"),
        RuntimeError("Launch error [1]: out of memory"),
    ],
)
def test_what_cannot_be_captured_runs_as_it_comes_and_is_not_tried_again(caplog, error):
    recordings = Recordings(1, error)
    executor = executor_on(recordings)
    given = {shape: inputs(shape.tokens) for shape in (SMALL, LARGE)}
    for _ in range(3):
        for shape in (SMALL, LARGE):
            logits, kv = executor.run(double, shape, given[shape], KV)
            assert torch.equal(logits, 2.0 * torch.arange(shape.tokens))
            assert kv is KV
        recordings.room = 1  # too late: capturing ended
    assert executor.captured == 1
    assert executor.unprepared(StepShape(64, 8, 64)) is None
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 1
    assert "capture steps of 8 tokens: no more than 1 shapes are captured" in said[0]
    assert "--memory-share" in said[0]


def test_a_step_that_finds_no_memory_has_that_of_all_graphs(caplog):
    recordings = Recordings(9)
    executor = executor_on(recordings)
    small = inputs(1)
    executor.run(double, SMALL, small, KV)

    def large(given: StepInputs, kv: object) -> tuple[Tensor, object]:
        if not recordings.reclaimed:
            raise torch.OutOfMemoryError("Out of memory.")
        return double(given, kv)

    logits, _ = executor.run(large, AS_IT_COMES, inputs(4096), KV)
    assert torch.equal(logits, 2.0 * torch.arange(4096))
    assert (executor.captured, recordings.reclaimed) == (0, 1)
    assert "run a step of 4096 tokens: none is captured from now on" in caplog.text
    executor.run(double, SMALL, small, KV)
    assert executor.captured == 0


def test_a_step_that_no_memory_of_graphs_could_help_fails():
    executor = executor_on(Recordings(9))

    def fails(error: RuntimeError, times: int) -> None:
        runs = []

        def step(given: StepInputs, kv: object) -> tuple[Tensor, object]:
            runs.append(given)
            raise error

        with pytest.raises(RuntimeError) as raised:
            executor.run(step, AS_IT_COMES, inputs(4096), KV)
        assert raised.value is error
        assert len(runs) == times

    full = torch.OutOfMemoryError("Out of memory.")
    fails(full, 1)
    executor.run(double, SMALL, inputs(1), KV)
    fails(RuntimeError("Driver error: an illegal memory access was encountered"), 1)
    assert executor.captured == 1
    fails(full, 2)


def test_another_error_while_a_step_is_captured_is_not_hidden():
    broken = Recordings(0, RuntimeError("operation not permitted when stream is capturing"))
    executor = executor_on(broken)
    with pytest.raises(RuntimeError, match="not permitted"):
        executor.run(double, SMALL, inputs(1), KV)


def test_a_step_is_captured_only_if_every_plan_keeps_its_addresses():
    given = inputs(8)
    kept = replace(given, plans=(Plan((1, 2)), Plan((3,))))
    tensors = (given.token_ids, given.positions, given.last_token)
    assert addresses_of(LARGE, kept) == (*(x.data_ptr() for x in tensors), (1, 2), (3,))
    assert addresses_of(LARGE, replace(given, plans=(Plan((1, 2)), object()))) is None
    assert addresses_of(AS_IT_COMES, given) is None


def test_what_moved_since_a_capture_is_a_fault():
    executor, small = executor_on(Recordings(9)), inputs(1)
    executor.run(double, SMALL, small, KV)
    with pytest.raises(RuntimeError, match=r"moved since.* the KV state is another"):
        executor.run(double, SMALL, small, object())
    with pytest.raises(RuntimeError, match=r"became .*\(2,\).* the KV state is the same"):
        executor.run(double, SMALL, replace(small, plans=(Plan((2,)),)), KV)


def test_the_memory_that_graphs_keep_is_that_of_the_largest_step_and_a_little_for_each():
    assert executor_on(Recordings(0)).kept(AS_IT_COMES) == Kept(StepShape(8, 8, 1), 200)
