"""What graphs keep of a GPU's memory, and a capture that runs out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest
import torch
from torch import Tensor

from inarch.hal.executor import Kept, StepInputs, StepShape
from inarch.hal.graphs import GraphExecutor, out_of_memory
from inarch_triton.gpu.buckets import GRAPH_BYTES, GRAPH_SHAPES
from inarch_triton.gpu.recorder import GpuRecorder

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU: ci/gpu runs this file on one"
)


class Unused:
    def record(self, work: Callable[[], Tensor]) -> NoReturn:
        raise AssertionError("nothing is recorded here")

    def reclaim(self) -> None:
        raise AssertionError("nothing was recorded here")


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
    kept = GraphExecutor(torch.device("cpu"), Unused(), GRAPH_SHAPES).kept(most)
    tokens, seqs = largest
    assert kept == Kept(StepShape(tokens, seqs, tokens), graphs * GRAPH_BYTES)


@needs_gpu
def test_a_capture_that_runs_out_of_memory_leaves_the_gpu_as_it_was():
    device = torch.device("cuda", 0)
    x = torch.ones(1 << 20, device=device)
    inputs = StepInputs(x, x, x, ())
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    recorder, stream = GpuRecorder(device), torch.cuda.current_stream()
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
        assert float(recorded.replay(inputs).sum()) == value * len(x)
    del recorded
    kept.clear()
    recorder.reclaim()
    assert torch.cuda.memory_reserved() == before
