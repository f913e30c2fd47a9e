"""Runs normalisations: with the residual sum before them, or alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


def build_norm(spec: Norm, builder: Builder, name: str) -> RunNorm:
    weight = builder.weights.take(f"{name}.weight")

    def bound(op: Op[..., Any]) -> Callable[..., Any]:
        return builder.bind(op, hidden=len(weight), weight_dtype=weight.dtype)

    match spec:
        case RMSNorm(eps):
            return RunNorm((weight, eps), bound(rms_norm), bound(add_rms_norm))
        case LayerNorm(eps, bias):
            shift = builder.weights.take(f"{name}.bias") if bias else None
            return RunNorm((weight, shift, eps), bound(layer_norm), bound(add_layer_norm))


def build_add_norm(spec: Norm | None, builder: Builder, name: str) -> AddNorm:
    return add if spec is None else build_norm(spec, builder, name)


def add(x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
    """In the place of a norm that a layer does without."""
    total = x if residual is None else residual + x
    return total, total
