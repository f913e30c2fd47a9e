"""Runs what follows the pooling of hidden states, in float32: it is little work, and scores are
compared with each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.ops.norm import layer_norm
from inarch.models.builder import Builder
from inarch.models.description.pooling import Dense, PooledHead, Pooling

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True, eq=False)
class RunDense:
    """x [N, inputs] -> [N, outputs]."""

    weight: Tensor  # [outputs, inputs]
    bias: Tensor | None
    activate: Callable[[Tensor], Tensor]
    norm: Callable[[Tensor], Tensor] | None

    def __call__(self, x: Tensor) -> Tensor:
        x = self.activate(F.linear(x, self.weight, self.bias))
        return x if self.norm is None else self.norm(x)


@dataclass(frozen=True, eq=False)
class RunHead:
    """Pooled hidden states [N, hidden] -> [N, outputs] float32."""

    pooling: Pooling
    layers: tuple[RunDense, ...]
    normalize: bool

    def __call__(self, x: Tensor) -> Tensor:
        x = x.float()
        for layer in self.layers:
            x = layer(x)
        return F.normalize(x, dim=-1) if self.normalize else x


def build_pooled_head(spec: PooledHead, builder: Builder, name: str) -> RunHead:
    """name: the prefix of its parameters."""
    layers = tuple(
        _build_dense(layer, builder, f"{name}.{index}") for index, layer in enumerate(spec.layers)
    )
    return RunHead(spec.pooling, layers, spec.normalize)


def _build_dense(spec: Dense, builder: Builder, name: str) -> RunDense:
    def take(parameter: str) -> Tensor:
        return builder.weights.take(f"{name}.{parameter}").float()

    norm = None
    if spec.norm is not None:
        eps, shift = spec.norm.eps, take("norm.bias") if spec.norm.bias else None
        scale = take("norm.weight")
        norm = lambda x: layer_norm(x, scale, shift, eps)  # noqa: E731
    bias = take("bias") if spec.bias else None
    return RunDense(take("weight"), bias, ACTIVATIONS[spec.activation], norm)
