"""Runs normalisations: with the residual sum before them, or alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inarch.hal.op import Op
from inarch.hal.ops.norm import add_layer_norm, add_rms_norm, layer_norm, rms_norm
from inarch.models.builder import Builder
from inarch.models.description import LayerNorm, Norm, RMSNorm

# (x, residual) -> (normed sum, sum), all [T, N]; without a residual yet x itself becomes it.
AddNorm = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class RunNorm:
    """A norm that also adds to the residual stream, or works alone on a tensor [..., N]."""

    weights: tuple[Any, ...]  # what its op takes behind the tensors: weight, bias, eps
    norm: Callable[..., Tensor]
    add_norm: Callable[..., tuple[Tensor, Tensor]]

    def __call__(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if residual is None:
            return self.norm(x, *self.weights), x
        return self.add_norm(x, residual, *self.weights)

    def alone(self, x: Tensor) -> Tensor:
        return self.norm(x, *self.weights)

    def renewing(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """As a call, but what is normed becomes the residual too."""
        normed, _ = self(x, residual)
        return normed, normed


def build_norm(spec: Norm, builder: Builder, name: str, features: int | None = None) -> RunNorm:
    """features: N, by default the size of the residual stream."""
    weight = norm_weight(spec, builder, name, features or builder.description.hidden)

    def bound(op: Op[..., Any]) -> Callable[..., Any]:
        return builder.bind(op, hidden=len(weight), weight_dtype=weight.dtype)

    match spec:
        case RMSNorm(eps):
            return RunNorm((weight, eps), bound(rms_norm), bound(add_rms_norm))
        case LayerNorm(eps, bias):
            shift = builder.weights.take(f"{name}.bias") if bias else None
            return RunNorm((weight, shift, eps), bound(layer_norm), bound(add_layer_norm))


def norm_weight(spec: Norm, builder: Builder, name: str, features: int) -> Tensor:
    """[features]; ones for a norm that has none, so that kernels need not know of such."""
    if spec.weight:
        return builder.weights.take(f"{name}.weight")
    return builder.table(("ones", features), lambda: torch.ones(features, dtype=builder.dtype))


def build_add_norm(
    spec: Norm | None, builder: Builder, name: str, *, normed_residual: bool = False
) -> AddNorm:
    """normed_residual: the residual stream goes on from what the norm gives."""
    if spec is None:
        return add
    norm = build_norm(spec, builder, name)
    return norm.renewing if normed_residual else norm


def add(x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
    """In the place of a norm that a layer does without."""
    total = x if residual is None else residual + x
    return total, total
