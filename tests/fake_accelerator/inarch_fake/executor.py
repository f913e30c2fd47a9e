"""Pads every step, captures small ones, and replays them as a graph: without calling the step again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.hal.executor import Kept, Step, StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch_fake.memory import DEVICE, FakeDeviceError, Recorder, poison

TOKEN_MULTIPLE = 16
CAPTURED_TOKENS, CAPTURED_SEQS = 64, 8


@dataclass(frozen=True)
class Graph:
    """A captured step, and everything that is baked into it."""

    step: Step
    inputs: StepInputs
    addresses: tuple[Any, ...]  # of the buffers of its plans
    kv: KVState
    work: Recorder
    logits: Tensor


class FakeExecutor:
    """Decodes are padded to a power of two of sequences, others to a multiple of 16 tokens.

    Prompts of up to 64 tokens in up to eight sequences are captured too.
    """

    def __init__(self) -> None:
        self._graphs: dict[StepShape, Graph] = {}
        self._static: dict[StepShape, dict[str, Tensor]] = {}
        self._passing: dict[str, Tensor] = {}
        self._previous: Tensor | None = None
        self.replays = 0

    @property
    def captured(self) -> set[StepShape]:
        return set(self._graphs)

    def bucket(self, shape: StepShape) -> StepShape:
        if shape.max_query == 1:
            seqs = 1 << (shape.seqs - 1).bit_length()
            return StepShape(seqs, seqs, 1, captured=True)
        padding = -shape.tokens % TOKEN_MULTIPLE
        tokens = shape.tokens + padding
        if tokens <= CAPTURED_TOKENS and shape.seqs + (padding > 0) <= CAPTURED_SEQS:
            return StepShape(tokens, CAPTURED_SEQS, tokens, captured=True)
        seqs = min(padding, 2)  # they hold the padding tokens
        return StepShape(tokens, shape.seqs + seqs, max(shape.max_query, padding))

    def unprepared(self, most: StepShape) -> StepShape | None:
        """Decodes of 1, 2, 4 and 8 sequences, each before prompts of 16, 32, 48 and 64 tokens."""
        for i in range(4):
            prompt = (i + 1) * TOKEN_MULTIPLE
            for shape in (
                StepShape(1 << i, 1 << i, 1, captured=True),
                StepShape(prompt, CAPTURED_SEQS, prompt, captured=True),
            ):
                if shape not in self._graphs and shape.tokens <= most.tokens:
                    return shape
        return None

    def kept(self, most: StepShape) -> Kept:
        return Kept(StepShape(CAPTURED_TOKENS, CAPTURED_SEQS, CAPTURED_TOKENS), 0)

    def upload(
        self,
        shape: StepShape,
        arrays: Mapping[str, np.ndarray],
        passing: Mapping[str, np.ndarray],
    ) -> dict[str, Tensor]:
        for tensor in self._passing.values():
            poison(tensor.raw)  # type: ignore[attr-defined]
        self._passing = {name: _fresh(array) for name, array in passing.items()}
        fresh = {name: _fresh(array) for name, array in arrays.items()}
        if not shape.captured:
            return fresh | self._passing
        static = self._static.setdefault(shape, fresh)
        if {name: (x.shape, x.dtype) for name, x in fresh.items()} != {
            name: (x.shape, x.dtype) for name, x in static.items()
        }:
            raise FakeDeviceError(f"the arrays of {shape} are not those of its first step")
        for name, tensor in static.items():
            tensor.copy_(fresh[name])
        return static | self._passing

    def run(
        self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState
    ) -> tuple[Tensor, KVState]:
        self._check(shape, inputs)
        if self._previous is not None:
            poison(self._previous.raw)  # type: ignore[attr-defined]
        addresses = tuple(getattr(plan, "addresses", None) for plan in inputs.plans)
        if not shape.captured or None in addresses:
            logits, kv = step(inputs, kv)
        elif shape not in self._graphs:
            logits = self._capture(step, shape, inputs, addresses, kv).logits
        else:
            logits = self._replay(self._graphs[shape], step, inputs, addresses, kv)
        self._previous = logits
        return logits, kv

    def _check(self, shape: StepShape, inputs: StepInputs) -> None:
        given = (inputs.token_ids.shape[0], inputs.positions.shape[0], inputs.last_token.shape[0])
        if not shape.captured and given[2] > shape.seqs:
            return
        if self.bucket(shape) != shape:
            raise FakeDeviceError(f"{shape} is no bucket: {self.bucket(shape)} is")
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
        recorder = Recorder()
        with recorder:
            logits, kv = step(inputs, kv)
        self._graphs[shape] = graph = Graph(step, inputs, addresses, kv, recorder, logits)
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
            if getattr(graph.inputs, name) is not getattr(inputs, name):
                raise FakeDeviceError(f"{name} moved after its address was captured")
        graph.work.replay()
        self.replays += 1
        return graph.logits


def _fresh(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.copy()).to(DEVICE)
