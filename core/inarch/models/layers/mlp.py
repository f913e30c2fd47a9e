"""Runs the gated feed-forward: gate and up in one product, the activation, then down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from inarch.hal.ops.activation import gelu_mul, silu_mul
from inarch.models.builder import Builder, Projection
from inarch.models.description import GatedMLP

ACTIVATIONS = {"silu": silu_mul, "gelu_tanh": gelu_mul}


@dataclass(frozen=True, eq=False)
class MLP:
    """x [T, hidden] -> [T, hidden]."""

    gate_up: Projection
    activate: Callable[[Tensor], Tensor]
    down: Projection

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self.activate(self.gate_up(x)))


def build_mlp(spec: GatedMLP, builder: Builder, name: str) -> MLP:
    activate = builder.bind(ACTIVATIONS[spec.activation], intermediate=spec.intermediate)
    return MLP(builder.linear(f"{name}.gate_up"), activate, builder.linear(f"{name}.down"))
