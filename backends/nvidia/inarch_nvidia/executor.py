"""Decodes as CUDA graphs: one launch a step instead of hundreds. Everything else runs as it comes.

A graph is captured when its bucket is first met, right after that step has run eagerly on the same
buffers (which also compiles what it needs). Plans of one bucket may come in variants, which launch
other kernels: each has a graph of its own. All graphs share the static inputs and one memory pool,
where each of them overwrites what the last one left.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inarch.hal.executor import Step, StepInputs, StepShape
from inarch.hal.kv import KVState

# Decodes of few sequences cost what the weights cost, whatever the padding; of many, padding costs.
# Every graph takes memory of its own, so the steps grow with the size; from 64 sequences on at most
# a fifth is padding.
SIZES = (
    *(1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64),
    *(80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512),
)


def bucket(shape: StepShape) -> StepShape:
    """Decodes are padded to the next of SIZES; what cannot be captured is not padded."""
    if shape.max_query > 1 or shape.seqs > SIZES[-1]:
        return shape
    size = SIZES[bisect_left(SIZES, shape.seqs)]
    return StepShape(size, size, 1)


Key = tuple[int, tuple[Any, ...]]  # sequences, the variants of the plans


@dataclass(frozen=True)
class Graph:
    """A captured step, and everything that is baked into it."""

    replayed: torch.cuda.CUDAGraph
    addresses: tuple[Any, ...]  # of the buffers of its plans
    logits: Tensor  # in the pool: overwritten by whichever graph runs next


class GraphExecutor:
    """Serves one decoder and one KV state, whose addresses are in the graphs."""

    def __init__(self, device: torch.device) -> None:
        self._token_ids = torch.zeros(SIZES[-1], dtype=torch.int64, device=device)
        self._positions = torch.zeros(SIZES[-1], dtype=torch.int64, device=device)
        self._last_token = torch.arange(SIZES[-1], device=device)  # each sequence has one token
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)
        self._graphs: dict[Key, Graph] = {}
        self._kv: KVState = None

    @property
    def captured(self) -> int:
        """Graphs so far."""
        return len(self._graphs)

    def bucket(self, shape: StepShape) -> StepShape:
        return bucket(shape)

    def run(
        self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState
    ) -> tuple[Tensor, KVState]:
        addresses = addresses_of(shape, inputs)
        if addresses is None:
            return step(inputs, kv)
        self._token_ids[: shape.seqs].copy_(inputs.token_ids)
        self._positions[: shape.seqs].copy_(inputs.positions)
        key = shape.seqs, tuple(getattr(plan, "variant", None) for plan in inputs.plans)
        graph = self._graphs.get(key)
        if graph is None:
            return self._first(step, key, inputs.plans, kv, addresses)
        if graph.addresses != addresses or kv is not self._kv:
            raise RuntimeError(
                f"a graph of {shape.seqs} decodes was captured with buffers that have moved since: "
                f"{graph.addresses} became {addresses}, the KV state is "
                f"{'the same' if kv is self._kv else 'another'}"
            )
        graph.replayed.replay()
        return graph.logits, kv

    def _first(
        self, step: Step, key: Key, plans: tuple[Any, ...], kv: KVState, addresses: tuple[Any, ...]
    ) -> tuple[Tensor, KVState]:
        """Run a step as it comes and capture it for the next time."""
        seqs, _ = key
        buffers = (self._token_ids[:seqs], self._positions[:seqs], self._last_token[:seqs])
        inputs = StepInputs(*buffers, plans)
        logits, kv = step(inputs, kv)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            captured, kv = step(inputs, kv)
        self._graphs[key] = Graph(graph, addresses, unowned(captured))
        self._kv = kv
        return logits, kv


def addresses_of(shape: StepShape, inputs: StepInputs) -> tuple[Any, ...] | None:
    """Of all buffers of the plans of a step that can be captured; None for another step.

    A plan that can be captured has an attribute `addresses`; what else it launches kernels with is
    a function of the shape and, if it has one, of its attribute `variant`.
    """
    if shape.max_query > 1 or shape.seqs not in SIZES:
        return None
    addresses = tuple(getattr(plan, "addresses", None) for plan in inputs.plans)
    return None if None in addresses else addresses


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
