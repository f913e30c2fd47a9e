"""Steps as NPU graphs: one launch and an update of what the host knows instead of hundreds of launches.

The lengths of the sequences are arguments that attention takes from the host, so that a graph has
those of its capture baked in. torch-npu captures each such call as a task group which waits for an
event; `NPUGraph.update` then gives every group its new arguments, on a stream of its own, and sets its
event. The tasks of a graph must not change while its last replay still runs: the host waits for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.hal.executor import Kept, Step, StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch.hal.packing import Packing, pack
from inarch_ascend.buckets import bucket, shapes
from inarch_ascend.transfer import pinned

# Of a graph, beside the pool: its tasks and the workspaces of attention. Not measured on an NPU.
GRAPH_BYTES = 16 << 20


@dataclass(frozen=True)
class Graph:
    """A captured step, and everything that is baked into it."""

    graph: Any  # torch.npu.NPUGraph
    logits: Tensor  # overwritten by every replay
    addresses: tuple[Any, ...]  # of its inputs and of the buffers of its plans


@dataclass(frozen=True)
class Inputs:
    """Where the arrays of a bucket are: in every one of its steps."""

    layout: tuple[Any, ...]
    buffer: Tensor
    tensors: dict[str, Tensor]


class NPUGraphExecutor:
    """Serves one decoder and one KV state, whose addresses are in the graphs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.npu.graph_pool_handle()
        self._inputs: dict[StepShape, Inputs] = {}
        self._graphs: dict[StepShape, Graph] = {}
        self._kv: KVState = None
        self._replayed = torch.npu.Event()  # the end of the last replay

    @property
    def captured(self) -> int:
        """Graphs so far."""
        return len(self._graphs)

    def bucket(self, shape: StepShape) -> StepShape:
        return bucket(shape)

    def unprepared(self, most: StepShape) -> StepShape | None:
        return next((shape for shape in shapes(most) if shape not in self._inputs), None)

    def kept(self, most: StepShape) -> Kept | None:
        captured = shapes(most)
        return Kept(captured[-1], len(captured) * GRAPH_BYTES)

    # ---- inputs ----

    def upload(
        self,
        shape: StepShape,
        arrays: Mapping[str, np.ndarray],
        passing: Mapping[str, np.ndarray],
    ) -> dict[str, Tensor]:
        packing = pack({**arrays, **passing})
        there = pinned(packing).to(self._device, non_blocking=True)
        if not shape.captured:
            return packing.views(there, packing.arrays)
        inputs = self._fixed(shape, packing, arrays)
        inputs.buffer.copy_(there[: len(inputs.buffer)])
        return packing.views(there, passing) | inputs.tensors

    def _fixed(
        self, shape: StepShape, packing: Packing, arrays: Mapping[str, np.ndarray]
    ) -> Inputs:
        """The same tensors for every step of a shape. What passes comes behind them."""
        layout = tuple((name, array.shape, array.dtype) for name, array in arrays.items())
        inputs = self._inputs.get(shape)
        if inputs is None:
            size = pack(arrays).size
            buffer = torch.zeros(size, dtype=torch.uint8, device=self._device)
            inputs = Inputs(layout, buffer, packing.views(buffer, arrays))
            self._inputs[shape] = inputs
        if inputs.layout != layout:
            raise RuntimeError(f"the arrays of {shape} were {inputs.layout} and became {layout}")
        return inputs

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
        self._replay(graph, inputs)
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
        graph = torch.npu.NPUGraph()
        with torch.npu.graph(graph, pool=self._pool, auto_dispatch_capture=True):
            captured, _ = step(inputs, kv)
        self._graphs[shape] = Graph(graph, captured, addresses)
        self._kv = kv
        return logits, kv

    def _replay(self, graph: Graph, inputs: StepInputs) -> None:
        updates = host_updates(inputs)
        self._replayed.synchronize()
        graph.graph.replay()
        if updates is not None:
            graph.graph.update(cpu_update_input=[updates])
        self._replayed.record()


def addresses_of(shape: StepShape, inputs: StepInputs) -> tuple[Any, ...] | None:
    """Of all buffers that a step reads, if it can be captured; None for another step.

    A plan that can be captured has an attribute `addresses`; what else it launches operators with is
    a function of the shape, or in its `host_update`.
    """
    if not shape.captured:
        return None
    plans = tuple(getattr(plan, "addresses", None) for plan in inputs.plans)
    if None in plans:
        return None
    given = (inputs.token_ids, inputs.positions, inputs.last_token)
    return (*(tensor.data_ptr() for tensor in given), *plans)


def host_updates(inputs: StepInputs) -> dict[str, list[int]] | None:
    """What attention must be told before a replay: the same for all of a step's plans."""
    found = [plan.host_update for plan in inputs.plans if hasattr(plan, "host_update")]
    if any(update != found[0] for update in found):
        raise RuntimeError(f"the plans of one step differ in their lengths: {found}")
    return found[0] if found else None
