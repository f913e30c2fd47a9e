"""Records steps as CUDA graphs which share one pool of memory, each overwriting what the last left.

Recording may run out of memory, in torch's allocator or in the driver; torch then ends the capture
itself, but leaves the stream of the capture current if it cannot make a graph of what there is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inarch.hal.executor import StepInputs


@dataclass(frozen=True)
class GpuRecording:
    """A step that can be repeated."""

    graph: torch.cuda.CUDAGraph
    logits: Tensor  # in the pool: overwritten by whichever graph runs next

    def replay(self, inputs: StepInputs) -> Tensor:
        self.graph.replay()
        return self.logits


class GpuRecorder:
    """The pool, and the stream that captures happen on."""

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def record(self, work: Callable[[], Tensor]) -> GpuRecording:
        """If memory runs out, what was taken for the pool stays with it until the last graph is gone."""
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ),
        ):
            logits = work()
        return GpuRecording(graph, unowned(logits))

    def reclaim(self) -> None:
        torch.cuda.synchronize()  # the last replay may still run
        torch.cuda.empty_cache()


def unowned(tensor: Tensor) -> Tensor:
    """The same contiguous memory without keeping it: graphs of one pool may then share it."""
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    return torch.as_tensor(Memory(tensor), device=tensor.device)


class Memory:
    """Where a tensor lies, in the words by which libraries hand arrays to each other."""

    def __init__(self, tensor: Tensor) -> None:
        self.__cuda_array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": tuple(tensor.shape),
            "typestr": "<f4",
            "data": (tensor.data_ptr(), False),
        }
