"""Runs what makes the first hidden states: a token's embedding, and what a model does to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.models.builder import Builder
from inarch.models.layers.norm import build_norm


@dataclass(frozen=True, eq=False)
class Embedding:
    """Token ids and positions of a step -> [T, hidden]. What is None or 1 is left out."""

    weight: Tensor  # [V, hidden]
    scale: float
    positions: Tensor | None  # [count, hidden]
    offset: int  # of a position's row in them
    types: Tensor | None  # [types, hidden]
    norm: Callable[[Tensor], Tensor] | None

    def __call__(self, inputs: StepInputs) -> Tensor:
        x = F.embedding(inputs.token_ids, self.weight)
        if self.scale != 1.0:
            x = x * self.scale
        if self.positions is not None:
            x = x + F.embedding(inputs.positions + self.offset, self.positions)
        if self.types is not None:
            x = x + self.types[0 if inputs.token_types is None else inputs.token_types]
        return x if self.norm is None else self.norm(x)


def build_embedding(builder: Builder) -> Embedding:
    spec = builder.description
    places, norm = spec.positions, spec.embedding_norm
    return Embedding(
        weight=builder.weights.take("embedding.weight"),
        scale=torch.tensor(spec.embedding_scale, dtype=builder.dtype).item(),
        positions=None if places is None else builder.weights.take("positions.weight"),
        offset=0 if places is None else places.offset,
        types=builder.weights.take("token_types.weight") if spec.token_types else None,
        norm=None if norm is None else build_norm(norm, builder, "embedding_norm").alone,
    )
