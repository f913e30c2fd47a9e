"""Pads every step, captures decodes, and replays them as a graph: without calling the step again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from inarch.hal.executor import Step, StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch_fake.memory import FakeDeviceError, Recorder, poison

TOKEN_MULTIPLE = 16


@dataclass(frozen=True)
class Graph:
    """A captured step, and everything that is baked into it."""

    step: Step
    inputs: StepInputs  # static buffers
    addresses: tuple[Any, ...]  # of the buffers of its plans
    kv: KVState
    work: Recorder
    logits: Tensor


class FakeExecutor:
    """Decodes are padded to a power of two of sequences, others to a multiple of 16 tokens."""

    def __init__(self) -> None:
        self._graphs: dict[StepShape, Graph] = {}
        self._previous: Tensor | None = None
        self.replays = 0

    def bucket(self, shape: StepShape) -> StepShape:
        if shape.max_query == 1:
            seqs = 1 << (shape.seqs - 1).bit_length()
            return StepShape(seqs, seqs, 1)
        padding = -shape.tokens % TOKEN_MULTIPLE
        seqs = min(padding, 2)  # they hold the padding tokens
        return StepShape(shape.tokens + padding, shape.seqs + seqs, max(shape.max_query, padding))

    def run(
        self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState
    ) -> tuple[Tensor, KVState]:
        self._check(shape, inputs)
        if self._previous is not None:
            poison(self._previous.raw)  # type: ignore[attr-defined]
        addresses = tuple(getattr(plan, "addresses", None) for plan in inputs.plans)
        if shape.max_query > 1 or None in addresses:
            logits, kv = step(inputs, kv)
        elif shape not in self._graphs:
            logits = self._capture(step, shape, inputs, addresses, kv).logits
        else:
            logits = self._replay(self._graphs[shape], step, inputs, addresses, kv)
        self._previous = logits
        return logits, kv

    def _check(self, shape: StepShape, inputs: StepInputs) -> None:
        if self.bucket(shape) != shape:
            raise FakeDeviceError(f"{shape} is no bucket: {self.bucket(shape)} is")
        given = (inputs.token_ids.shape[0], inputs.positions.shape[0], inputs.last_token.shape[0])
        if given != (shape.tokens, shape.tokens, shape.seqs):
            raise FakeDeviceError(f"inputs of {given} rows were said to be {shape}")

    def _capture(
        self,
        step: Step,
        shape: StepShape,
        inputs: StepInputs,
        addresses: tuple[Any, ...],
        kv: KVState,
    ) -> Graph:
        static = StepInputs(
            inputs.token_ids.clone(),
            inputs.positions.clone(),
            inputs.last_token.clone(),
            inputs.plans,
        )
        recorder = Recorder()
        with recorder:
            logits, kv = step(static, kv)
        self._graphs[shape] = graph = Graph(step, static, addresses, kv, recorder, logits)
        return graph

    def _replay(
        self,
        graph: Graph,
        step: Step,
        inputs: StepInputs,
        addresses: tuple[Any, ...],
        kv: KVState,
    ) -> Tensor:
        if step != graph.step:
            raise FakeDeviceError("another step function than the one that was captured")
        if kv is not graph.kv:
            raise FakeDeviceError("the KV state moved after its address was captured")
        if addresses != graph.addresses:
            raise FakeDeviceError("a plan moved: its buffers are not at the captured addresses")
        for name in ("token_ids", "positions", "last_token"):
            getattr(graph.inputs, name).copy_(getattr(inputs, name))
        graph.work.replay()
        self.replays += 1
        return graph.logits
