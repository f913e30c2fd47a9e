"""What happens when the device's memory runs out while steps are captured, or after."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from inarch.hal.executor import Kept, StepInputs, StepShape
from inarch_triton.gpu.executor import GRAPH_BYTES, GraphExecutor
from inarch_triton.gpu.recorder import Recorder, out_of_memory

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU: ci/gpu runs this file on one"
)
SMALL, LARGE = (StepShape(n, n, 1, captured=True) for n in (1, 8))
AS_IT_COMES = StepShape(4096, 3, 4000)
KV = object()


@dataclass(frozen=True)
class Plan:
    addresses: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Repeat:
    work: Callable[[], Tensor]

    def replay(self) -> Tensor:
        return self.work()


class Recordings:
    """Plays CUDA graphs on the CPU: there is room for so many, or none any more."""

    def __init__(self, room: int, error: RuntimeError | None = None) -> None:
        self.room, self.reclaimed = room, 0
        self._error = error or torch.OutOfMemoryError("CUDA out of memory.")

    def record(self, work: Callable[[], Tensor]) -> Repeat:
        if not self.room:
            raise self._error
        self.room -= 1
        return Repeat(work)

    def reclaim(self) -> None:
        self.reclaimed += 1


def inputs(tokens: int) -> StepInputs:
    ids = torch.arange(tokens)
    return StepInputs(ids, ids, ids, (Plan(),))


def double(given: StepInputs, kv: object) -> tuple[Tensor, object]:
    return 2.0 * given.token_ids, kv


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_what_cannot_be_captured_runs_as_it_comes_and_is_not_tried_again(caplog, error):
    recordings = Recordings(1, error)
    executor = GraphExecutor(torch.device("cpu"), recordings)
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
    executor = GraphExecutor(torch.device("cpu"), recordings)
    small = inputs(1)
    executor.run(double, SMALL, small, KV)

    def large(given: StepInputs, kv: object) -> tuple[Tensor, object]:
        if not recordings.reclaimed:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return double(given, kv)

    logits, _ = executor.run(large, AS_IT_COMES, inputs(4096), KV)
    assert torch.equal(logits, 2.0 * torch.arange(4096))
    assert (executor.captured, recordings.reclaimed) == (0, 1)
    assert "run a step of 4096 tokens: none is captured from now on" in caplog.text
    executor.run(double, SMALL, small, KV)
    assert executor.captured == 0


def test_a_step_that_no_memory_of_graphs_could_help_fails():
    executor = GraphExecutor(torch.device("cpu"), Recordings(9))

    def fails(error: RuntimeError, times: int) -> None:
        runs = []

        def step(given: StepInputs, kv: object) -> tuple[Tensor, object]:
            runs.append(given)
            raise error

        with pytest.raises(RuntimeError) as raised:
            executor.run(step, AS_IT_COMES, inputs(4096), KV)
        assert raised.value is error
        assert len(runs) == times

    full = torch.OutOfMemoryError("CUDA out of memory.")
    fails(full, 1)
    executor.run(double, SMALL, inputs(1), KV)
    fails(RuntimeError("CUDA error: an illegal memory access was encountered"), 1)
    assert executor.captured == 1
    fails(full, 2)


def test_another_error_while_a_step_is_captured_is_not_hidden():
    broken = Recordings(0, RuntimeError("operation not permitted when stream is capturing"))
    executor = GraphExecutor(torch.device("cpu"), broken)
    with pytest.raises(RuntimeError, match="not permitted"):
        executor.run(double, SMALL, inputs(1), KV)


@pytest.mark.parametrize(
    ("most", "largest", "graphs"),
    [
        (StepShape(8192, 512, 8192), (2048, 528), 73),
        (StepShape(100, 4, 100), (128, 64), 7),
        (StepShape(1, 1, 1), (1, 1), 1),
    ],
)
def test_the_memory_that_graphs_keep_is_that_of_the_largest_step_and_a_little_for_each(
    most, largest, graphs
):
    kept = GraphExecutor(torch.device("cpu"), Recordings(0)).kept(most)
    tokens, seqs = largest
    assert kept == Kept(StepShape(tokens, seqs, tokens), graphs * GRAPH_BYTES)


@needs_gpu
def test_a_capture_that_runs_out_of_memory_leaves_the_gpu_as_it_was():
    device = torch.device("cuda", 0)
    x = torch.ones(1 << 20, device=device)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    recorder, stream = Recorder(device), torch.cuda.current_stream()
    kept = [recorder.record(lambda: x + 1)]
    with pytest.raises(RuntimeError) as raised:
        recorder.record(
            lambda: (x + 2) * torch.ones(2 * total, dtype=torch.uint8, device=device)[0]
        )
    assert out_of_memory(raised.value)
    del raised
    assert torch.cuda.current_stream() == stream
    assert not torch.cuda.is_current_stream_capturing()
    assert float((x * 5).sum()) == 5 * len(x)
    kept.append(recorder.record(lambda: x * 3))
    for recorded, value in zip(kept, (2, 3), strict=True):
        assert float(recorded.replay().sum()) == value * len(x)
    del recorded
    kept.clear()
    recorder.reclaim()
    assert torch.cuda.memory_reserved() == before
