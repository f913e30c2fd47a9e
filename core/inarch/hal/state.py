"""Recurrent states beside the pages: what a mixer keeps of a whole sequence, in a slot of fixed size.

The core owns slot ids, as it owns page ids. A step cuts its tokens into *runs*; each begins with the
state in one slot and leaves the state after its last token in another, or in the same. So a state
that is to be kept, for a prompt that begins alike, is left behind without a copy.

Slot 0 is the null slot: a run that reads it begins with zeros, padding writes it, and no request is
ever given it. Letters in shapes: T tokens of the batch, R runs, n runs of one group of L tokens each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from inarch.errors import UnsupportedError
from inarch.hal.attention import AttentionBatch, HostPlan
from inarch.hal.kv import KVState

NULL_SLOT = 0


@dataclass(frozen=True)
class StateTensor:
    """One tensor of a mixer's state, without the axis of slots."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class StateSpec:
    """What the model keeps of a sequence: the tensors of each mixer that has a state."""

    mixers: tuple[tuple[StateTensor, ...], ...] = ()

    @property
    def slot_bytes(self) -> int:
        return sum(tensor.nbytes for mixer in self.mixers for tensor in mixer)

    def __bool__(self) -> bool:
        return bool(self.mixers)


MixerState = tuple[Tensor, ...]  # each [slots, *shape]


class HybridState(NamedTuple):
    """The KV state of a model with recurrent states: the store's pages, and the states by mixer."""

    pages: KVState
    mixers: tuple[MixerState, ...]

    def with_pages(self, pages: KVState) -> HybridState:
        return self if pages is self.pages else self._replace(pages=pages)

    def with_mixer(self, index: int, new: MixerState) -> HybridState:
        """In-place ops give back what they were given, and the state then stays the same object."""
        if all(a is b for a, b in zip(self.mixers[index], new, strict=True)):
            return self
        return self._replace(mixers=(*self.mixers[:index], new, *self.mixers[index + 1 :]))


def allocate_states(
    pages: KVState, spec: StateSpec, slots: int, torch_device: torch.device
) -> KVState:
    """The pages with `slots` slots beside them, the null slot included; the pages alone without."""
    if not spec:
        return pages
    mixers = tuple(
        tuple(
            torch.zeros((slots, *tensor.shape), dtype=tensor.dtype, device=torch_device)
            for tensor in mixer
        )
        for mixer in spec.mixers
    )
    return HybridState(pages, mixers)


@dataclass(frozen=True)
class StateBatch:
    """The runs of one batch, in host arrays only; together they are all of its tokens, in order.

    Run r has the tokens indptr[r]:indptr[r + 1]. It may read what a run of an earlier wave writes;
    within a wave no slot is written twice, nor written by one run and read by another.
    """

    indptr: np.ndarray  # int32 [R + 1]
    read: np.ndarray  # int32 [R]
    write: np.ndarray  # int32 [R]
    wave: np.ndarray  # int32 [R]


def padding_runs(q_indptr: np.ndarray) -> StateBatch:
    """The runs of a step that is padding throughout."""
    null = np.full(len(q_indptr) - 1, NULL_SLOT, dtype=np.int32)
    return StateBatch(q_indptr, null, null, null)


@dataclass(frozen=True)
class RunGroup:
    """n runs of L tokens each, on the device: what is computed together."""

    size: int  # n
    length: int  # L
    tokens: Tensor | slice  # where the n * L tokens are in the batch
    read: Tensor  # int64 [n]
    write: Tensor  # int64 [n]

    def take(self, x: Tensor) -> Tensor:
        """[T, ...] -> [n, L, ...]"""
        return x[self.tokens].view(self.size, self.length, *x.shape[1:])


@dataclass(frozen=True)
class StatePlan:
    """Groups in the order in which they must be computed.

    addresses: of what a step of a captured shape reads, see `Executor`; None if it must run as it
    comes.
    """

    groups: tuple[RunGroup, ...]
    addresses: tuple[int, ...] | None = None


def plan_states(batch: AttentionBatch) -> HostPlan:
    """The plan of one step, bound to a StatePlan. Steps of decodes alone can be captured.

    Raises UnsupportedError for a tree of drafted tokens.
    """
    if batch.tree_parent is not None:
        raise UnsupportedError(
            "a tree of drafted tokens cannot be verified by a model with recurrent states: a state "
            "that has seen a token cannot go back to before it"
        )
    runs = batch.states or padding_runs(batch.q_indptr)
    bucket = batch.bucket
    longest = int(np.diff(batch.q_indptr).max()) if bucket is None else bucket.max_query
    return _decodes(runs) if longest == 1 else _mixed(runs)


def _decodes(batch: StateBatch) -> HostPlan:
    arrays = {"read": batch.read.astype(np.int64), "write": batch.write.astype(np.int64)}
    size = len(batch.read)

    def bind(there: Mapping[str, Tensor]) -> StatePlan:
        read, write = there["read"], there["write"]
        group = RunGroup(size, 1, slice(0, size), read, write)
        return StatePlan((group,), (read.data_ptr(), write.data_ptr()))

    return HostPlan(arrays, {}, bind)


def _mixed(batch: StateBatch) -> HostPlan:
    groups = [(members, _tokens(batch, members)) for members in _groups(batch)]
    passing: dict[str, np.ndarray] = {}
    for i, (members, tokens) in enumerate(groups):
        passing[f"{i}.read"] = batch.read[members].astype(np.int64)
        passing[f"{i}.write"] = batch.write[members].astype(np.int64)
        if not isinstance(tokens, slice):
            passing[f"{i}.tokens"] = tokens

    def bind(there: Mapping[str, Tensor]) -> StatePlan:
        return StatePlan(
            tuple(
                RunGroup(
                    size=len(members),
                    length=int(batch.indptr[members[0] + 1] - batch.indptr[members[0]]),
                    tokens=tokens if isinstance(tokens, slice) else there[f"{i}.tokens"],
                    read=there[f"{i}.read"],
                    write=there[f"{i}.write"],
                )
                for i, (members, tokens) in enumerate(groups)
            )
        )

    return HostPlan({}, passing, bind)


def _groups(batch: StateBatch) -> Iterator[np.ndarray]:
    """Indices of runs of one wave and one length, earlier waves first; padding may have no token."""
    lengths = np.diff(batch.indptr)
    order = np.lexsort((lengths, batch.wave))
    order = order[lengths[order] > 0]
    keys = np.stack((batch.wave[order], lengths[order]))
    borders = np.flatnonzero((keys[:, 1:] != keys[:, :-1]).any(axis=0)) + 1
    return (order[a:b] for a, b in pairwise((0, *borders.tolist(), len(order))))


def _tokens(batch: StateBatch, members: np.ndarray) -> np.ndarray | slice:
    """Where the tokens of runs of one length are: int64, or a slice if they lie side by side."""
    starts, length = batch.indptr[members], int(np.diff(batch.indptr)[members[0]])
    if starts[-1] - starts[0] == (len(members) - 1) * length:
        return slice(int(starts[0]), int(starts[-1]) + length)
    tokens: np.ndarray = (starts[:, None].astype(np.int64) + np.arange(length)).ravel()
    return tokens
