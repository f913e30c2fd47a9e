"""Steps as graphs: recorded once for each shape, replayed by one launch instead of hundreds.

For backends whose hardware can record work; how it does is a `Recorder` of theirs. A graph is recorded
when its bucket is first met, or while there is nothing to do, right after that step has run as it
comes on the same buffers (which also compiles what it needs). All graphs share the memory that inputs
are copied to.

Running out of memory costs speed, no answer: when a graph cannot be recorded, no more are tried; when
a step that runs as it comes finds no memory, all graphs go and it has theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from inarch.hal.executor import Kept, Step, StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch.hal.packing import Packing, pack
from inarch.hal.pinned import staged

# What captured steps read, some 100 KiB for each kind of attention, and what else comes with it. A
# shape that reads more, such as the page tables of very long contexts, has memory of its own.
INPUT_BYTES = 4 << 20

log = logging.getLogger(__name__)


class Recording(Protocol):
    """A step that can be repeated."""

    def replay(self, inputs: StepInputs) -> Tensor:
        """Run it on what its buffers hold now: `inputs`. The logits are always in the same place."""
        ...


class Recorder(Protocol):
    """Records work on a device."""

    def record(self, work: Callable[[], Tensor]) -> Recording:
        """Record the work that gives logits, which has run before, so that nothing is compiled.

        If memory runs out, raises an error of which `out_of_memory` says so.
        """
        ...

    def reclaim(self) -> None:
        """Give back to the device what the graphs had, when all of them are gone."""
        ...


@dataclass(frozen=True)
class GraphShapes:
    """Which steps are worth a graph.

    bucket: the captured shape that a step is padded to; a step that has none keeps its own shape.
    up_to: the captured ones of steps up to the largest, the most useful first. graph_bytes: what a
    graph takes beside the tensors that it shares with others.
    """

    bucket: Callable[[StepShape], StepShape]
    up_to: Callable[[StepShape], Sequence[StepShape]]
    graph_bytes: int


@dataclass(frozen=True)
class Graph:
    """A captured step, and everything that is baked into it."""

    recording: Recording
    addresses: tuple[Any, ...]  # of its inputs and of the buffers of its plans


@dataclass(frozen=True)
class Inputs:
    """Where the arrays of a bucket are: in every one of its steps."""

    layout: tuple[Any, ...]
    buffer: Tensor  # bytes that they lie in
    tensors: dict[str, Tensor]


class GraphExecutor:
    """Serves one decoder and one KV state, whose addresses are in the graphs."""

    def __init__(self, device: torch.device, recorder: Recorder, shapes: GraphShapes) -> None:
        self._device, self._recorder, self._shapes = device, recorder, shapes
        # One for all shapes: a step's copy begins when the step before has run.
        self._buffer = torch.zeros(INPUT_BYTES, dtype=torch.uint8, device=device)
        self._inputs: dict[StepShape, Inputs] = {}
        self._graphs: dict[StepShape, Graph] = {}
        self._capturing = True
        self._kv: KVState = None

    @property
    def captured(self) -> int:
        """Graphs so far."""
        return len(self._graphs)

    def bucket(self, shape: StepShape) -> StepShape:
        return self._shapes.bucket(shape)

    def unprepared(self, most: StepShape) -> StepShape | None:
        if not self._capturing:
            return None
        shapes = self._shapes.up_to(most)
        return next((shape for shape in shapes if shape not in self._inputs), None)

    def kept(self, most: StepShape) -> Kept | None:
        shapes = self._shapes.up_to(most)
        tokens, seqs, query = (
            max(getattr(shape, size) for shape in shapes)
            for size in ("tokens", "seqs", "max_query")
        )
        return Kept(StepShape(tokens, seqs, query), len(shapes) * self._shapes.graph_bytes)

    # ---- inputs ----

    def upload(
        self,
        shape: StepShape,
        arrays: Mapping[str, np.ndarray],
        passing: Mapping[str, np.ndarray],
    ) -> dict[str, Tensor]:
        packing = pack({**arrays, **passing})
        if not shape.captured:
            there = staged(packing).to(self._device, non_blocking=True)
            return packing.views(there, packing.arrays)
        if packing.size > INPUT_BYTES:  # what passes is very much: it goes on its own
            apart = pack(passing)
            there = staged(apart).to(self._device, non_blocking=True)
            found, packing = apart.views(there, passing), pack(arrays)
        else:
            found = packing.views(self._buffer, passing)
        inputs = self._fixed(shape, packing, arrays)
        inputs.buffer[: packing.size].copy_(staged(packing), non_blocking=True)
        return found | inputs.tensors

    def _fixed(
        self, shape: StepShape, packing: Packing, arrays: Mapping[str, np.ndarray]
    ) -> Inputs:
        """The same tensors for every step of a shape: making them again would take the host long."""
        layout = tuple((name, array.shape, array.dtype) for name, array in arrays.items())
        inputs = self._inputs.get(shape)
        if inputs is None:
            buffer = self._buffer
            if packing.size > INPUT_BYTES:
                buffer = torch.zeros(packing.size, dtype=torch.uint8, device=self._device)
            inputs = self._inputs[shape] = Inputs(layout, buffer, packing.views(buffer, arrays))
        if inputs.layout != layout:
            raise RuntimeError(f"the arrays of {shape} were {inputs.layout} and became {layout}")
        return inputs

    # ---- run ----

    def run(
        self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState
    ) -> tuple[Tensor, KVState]:
        addresses = addresses_of(shape, inputs)
        if addresses is None:
            return self._eager(step, inputs, kv)
        graph = self._graphs.get(shape)
        if graph is None:
            return self._first(step, shape, inputs, kv, addresses)
        if graph.addresses != addresses or kv is not self._kv:
            raise RuntimeError(
                f"a graph of {shape} was captured with buffers that have moved since: "
                f"{graph.addresses} became {addresses}, the KV state is "
                f"{'the same' if kv is self._kv else 'another'}"
            )
        return graph.recording.replay(inputs), kv

    def _first(
        self,
        step: Step,
        shape: StepShape,
        inputs: StepInputs,
        kv: KVState,
        addresses: tuple[Any, ...],
    ) -> tuple[Tensor, KVState]:
        """Run a step as it comes and capture it for the next time."""
        logits, kv = self._eager(step, inputs, kv)
        if not self._capturing:
            return logits, kv
        try:
            recording = self._recorder.record(lambda: step(inputs, kv)[0])
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            self._stop(
                f"capture steps of {shape.tokens} tokens",
                f"no more than {len(self._graphs)} shapes are",
            )
        else:
            self._graphs[shape] = Graph(recording, addresses)
            self._kv = kv
        return logits, kv

    def _eager(self, step: Step, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        """Run a step as it comes; a second time, which writes the same again, without any graphs."""
        try:
            return step(inputs, kv)
        except RuntimeError as error:
            if not self._graphs or not out_of_memory(error):
                raise
        # Here the error is gone, and so are the tensors of the step that it held.
        self._graphs.clear()
        self._recorder.reclaim()
        self._stop(f"run a step of {len(inputs.token_ids)} tokens", "none is")
        return step(inputs, kv)

    def _stop(self, what: str, left: str) -> None:
        self._capturing = False
        log.warning(
            "there was too little memory on the device to %s: %s captured from now on, any other step is "
            "launched piece by piece, which is slower; give it more room: lower --memory-share, "
            "--kv-tokens or --max-step-tokens, or end what else is on the device", what, left,
        )  # fmt: skip


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


def out_of_memory(error: RuntimeError) -> bool:
    """Whether it says so: torch's allocator has a class for it, a driver's call words."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)
