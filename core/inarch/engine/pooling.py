"""Vectors of prompts: hidden states of some of their tokens become one vector, or one score.

A prompt may take several steps. What each finds is added to a sum that stays on the device, so that
neither a step's budget nor a captured shape limits how long a prompt can be. Every kind of pooling
but the largest is a weighted sum, of which the weights are known before a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inarch.engine.batch import HostBatch
from inarch.engine.messages import Vectors
from inarch.engine.plan import Pooled, StepPlan
from inarch.engine.request import Request
from inarch.hal.device import Device, Transfer
from inarch.models.layers.pooling import RunHead


@dataclass(frozen=True)
class PooledStep:
    """What a step made of prompts, on its way to the host."""

    parts: Sequence[Pooled]
    rows: Transfer  # float32: of each part in turn `counts` rows
    counts: Sequence[int]

    def wait(self) -> list[tuple[Pooled, np.ndarray]]:
        """Of each part its vectors [rows, outputs]; there may be none yet."""
        ends = np.cumsum(self.counts)[:-1]
        return list(zip(self.parts, np.split(self.rows.wait(), ends), strict=True))


class Pooler:
    """Turns hidden states at positions of prompts into the vectors that the model's head makes."""

    def __init__(self, device: Device, head: RunHead, rows: int, hidden: int) -> None:
        """rows: most requests at once, of `hidden` features."""
        self._device = device
        self._head = head
        self._kind = head.pooling.kind
        self._shape = (rows, hidden)
        self._begun: Tensor | None = None  # by row: what earlier steps found

    def wanted(self, tokens: int) -> range:
        """The positions of a prompt whose hidden states are needed."""
        return self._head.pooling.positions(tokens)

    def arrays(self, parts: Sequence[Pooled], plan: StepPlan) -> dict[str, np.ndarray]:
        """What `pool` needs on the device."""
        if self._kind == "each":
            return {}
        lengths = [part.end - part.start for part in parts]
        weights = [self._head.pooling.weights(p.start, p.end, len(p.request.prompt)) for p in parts]
        return {
            "pooled_of": np.repeat(np.arange(len(parts)), lengths),
            "pooled_weights": np.concatenate(weights).astype(np.float32)[:, None],
            "pooled_rows": plan.rows[[part.sequence for part in parts]].astype(np.int64),
            "pooled_anew": np.array([self._is_first(part) for part in parts])[:, None],
            "pooled_done": np.array([i for i, p in enumerate(parts) if p.last], dtype=np.int64),
        }

    def pool(
        self, parts: Sequence[Pooled], hidden: Tensor, there: Mapping[str, Tensor]
    ) -> PooledStep:
        """Pool hidden states [P, hidden] of the parts in turn, with the uploaded `arrays`."""
        if self._kind == "each":
            counts = [part.end - part.start for part in parts]
            return PooledStep(parts, self._device.download(self._head(hidden)), counts)
        found = self._combine(hidden.float() * there["pooled_weights"], there["pooled_of"], parts)
        if not all(part.last and self._is_first(part) for part in parts):
            found = self._carry(found, there)
        vectors = self._head(found[there["pooled_done"]])
        return PooledStep(parts, self._device.download(vectors), [int(p.last) for p in parts])

    def rehearse(self, hidden: Tensor) -> None:
        """As if hidden states [P, hidden] were a prompt's: what that takes in memory shows."""
        self._head(hidden.float())

    def _is_first(self, part: Pooled) -> bool:
        assert part.request.wanted is not None
        return part.start <= part.request.wanted.start < part.end

    def _combine(self, hidden: Tensor, of: Tensor, parts: Sequence[Pooled]) -> Tensor:
        """[parts, hidden]: the sums, or the largest, of the rows of each."""
        shape = (len(parts), hidden.shape[1])
        if self._kind == "max":
            found = hidden.new_full(shape, -torch.inf)
            return found.scatter_reduce_(0, of[:, None].expand_as(hidden), hidden, "amax")
        return hidden.new_zeros(shape).index_add_(0, of, hidden)

    def _carry(self, found: Tensor, there: Mapping[str, Tensor]) -> Tensor:
        """Add what earlier steps found of the same prompts, and keep it for later ones."""
        if self._begun is None:
            self._begun = found.new_zeros(self._shape)
        rows = there["pooled_rows"]
        before = self._begun[rows]
        both = torch.maximum(found, before) if self._kind == "max" else found + before
        found = torch.where(there["pooled_anew"], found, both)
        self._begun.index_copy_(0, rows, found)
        return found


def as_vectors(request: Request) -> Vectors:
    """All that steps made of a prompt, as a message tells it."""
    rows = np.concatenate(request.vectors)
    return Vectors(len(rows), rows.astype("<f4").tobytes())


def token_types(plan: StepPlan, batch: HostBatch) -> np.ndarray:
    """int64 [T]: 1 where a token belongs to the second text of a pair, else 0."""
    types = np.zeros(batch.shape.tokens, dtype=np.int64)
    begins = batch.attention.q_indptr.tolist()
    for sequence, request in enumerate(plan.requests):
        if (second := request.params.second_text) is not None:
            here = slice(begins[sequence], begins[sequence + 1])
            types[here] = batch.inputs["positions"][here] >= second
    return types
