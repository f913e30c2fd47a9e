"""Steps as CUDA graphs: one launch instead of hundreds. Only the largest steps run as they come.

A graph is captured when its bucket is first met, or while there is nothing to do, right after that
step has run eagerly on the same buffers (which also compiles what it needs). All graphs share the
memory that inputs are copied to and one pool, where each overwrites what the last one left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.hal.executor import Step, StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch.hal.packing import Packing, pack
from inarch_nvidia.buckets import bucket, shapes
from inarch_nvidia.transfer import pinned

# All that the largest captured step reads, some 100 KiB for each kind of attention, and what else
# comes with it.
INPUT_BYTES = 4 << 20


@dataclass(frozen=True)
class Graph:
    """A captured step, and everything that is baked into it."""

    replayed: torch.cuda.CUDAGraph
    addresses: tuple[Any, ...]  # of its inputs and of the buffers of its plans
    logits: Tensor  # in the pool: overwritten by whichever graph runs next


@dataclass(frozen=True)
class Inputs:
    """Where the arrays of a bucket are: in every one of its steps."""

    layout: tuple[Any, ...]
    tensors: dict[str, Tensor]


class GraphExecutor:
    """Serves one decoder and one KV state, whose addresses are in the graphs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # One for all shapes: a step's copy begins when the step before has run.
        self._buffer = torch.zeros(INPUT_BYTES, dtype=torch.uint8, device=device)
        self._inputs: dict[StepShape, Inputs] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)
        self._graphs: dict[StepShape, Graph] = {}
        self._kv: KVState = None

    @property
    def captured(self) -> int:
        """Graphs so far."""
        return len(self._graphs)

    def bucket(self, shape: StepShape) -> StepShape:
        return bucket(shape)

    def unprepared(self, most: StepShape) -> StepShape | None:
        return next((shape for shape in shapes(most) if shape not in self._inputs), None)

    # ---- inputs ----

    def upload(
        self,
        shape: StepShape,
        arrays: Mapping[str, np.ndarray],
        passing: Mapping[str, np.ndarray],
    ) -> dict[str, Tensor]:
        packing = pack({**arrays, **passing})
        if not shape.captured:
            there = pinned(packing).to(self._device, non_blocking=True)
            return packing.views(there, packing.arrays)
        if packing.size > INPUT_BYTES:  # what passes is very much: it goes on its own
            apart = pack(passing)
            there = pinned(apart).to(self._device, non_blocking=True)
            found, packing = apart.views(there, passing), pack(arrays)
        else:
            found = packing.views(self._buffer, passing)
        self._buffer[: packing.size].copy_(pinned(packing), non_blocking=True)
        return found | self._fixed(shape, packing, arrays)

    def _fixed(
        self, shape: StepShape, packing: Packing, arrays: Mapping[str, np.ndarray]
    ) -> dict[str, Tensor]:
        """The same tensors for every step of a shape: making them again would take the host long."""
        layout = tuple((name, array.shape, array.dtype) for name, array in arrays.items())
        inputs = self._inputs.get(shape)
        if inputs is None:
            inputs = self._inputs[shape] = Inputs(layout, packing.views(self._buffer, arrays))
        if inputs.layout != layout:
            raise RuntimeError(f"the arrays of {shape} were {inputs.layout} and became {layout}")
        return inputs.tensors

    # ---- run ----

    def run(
        self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState
    ) -> tuple[Tensor, KVState]:
        addresses = addresses_of(shape, inputs)
        if addresses is None:
            return step(inputs, kv)
        graph = self._graphs.get(shape)
        if graph is None:
            return self._first(step, shape, inputs, kv, addresses)
        if graph.addresses != addresses or kv is not self._kv:
            raise RuntimeError(
                f"a graph of {shape} was captured with buffers that have moved since: "
                f"{graph.addresses} became {addresses}, the KV state is "
                f"{'the same' if kv is self._kv else 'another'}"
            )
        graph.replayed.replay()
        return graph.logits, kv

    def _first(
        self,
        step: Step,
        shape: StepShape,
        inputs: StepInputs,
        kv: KVState,
        addresses: tuple[Any, ...],
    ) -> tuple[Tensor, KVState]:
        """Run a step as it comes and capture it for the next time."""
        logits, kv = step(inputs, kv)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            captured, kv = step(inputs, kv)
        self._graphs[shape] = Graph(graph, addresses, unowned(captured))
        self._kv = kv
        return logits, kv


def addresses_of(shape: StepShape, inputs: StepInputs) -> tuple[Any, ...] | None:
    """Of all buffers that a step reads, if it can be captured; None for another step.

    A plan that can be captured has an attribute `addresses`; what else it launches kernels with is
    a function of the shape.
    """
    if not shape.captured:
        return None
    plans = tuple(getattr(plan, "addresses", None) for plan in inputs.plans)
    if None in plans:
        return None
    given = (inputs.token_ids, inputs.positions, inputs.last_token)
    return (*(tensor.data_ptr() for tensor in given), *plans)


def unowned(tensor: Tensor) -> Tensor:
    """The same contiguous memory without keeping it: graphs of one pool may then share it."""

    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    return torch.as_tensor(Memory(tensor), device=tensor.device)


class Memory:
    """Where a tensor lies, in the words by which libraries hand arrays to each other."""

    def __init__(self, tensor: Tensor) -> None:
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": tuple(tensor.shape),
            "typestr": "<f4",
            "data": (tensor.data_ptr(), False),
        }
