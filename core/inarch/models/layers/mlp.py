"""Runs feed-forwards: up (and the gate, in the same product), the activation, then down."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from inarch.hal.ops.activation import (
    gelu,
    gelu_exact_mul,
    gelu_mul,
    gelu_tanh,
    relu,
    relu_squared,
    silu,
    silu_mul,
    xielu,
)
from inarch.models.builder import Builder, Projection
from inarch.models.description import MLP, GatedMLP
from inarch.models.description.feed_forward import XIELU

GATED = {"silu": silu_mul, "gelu": gelu_exact_mul, "gelu_tanh": gelu_mul}
PLAIN = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
    "relu_squared": relu_squared,
}


@dataclass(frozen=True, eq=False)
class RunMLP:
    """x [T, hidden] -> [T, hidden]."""

    up: Projection
    activate: Callable[[Tensor], Tensor]
    down: Projection

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self.activate(self.up(x)))


def build_gated_mlp(spec: GatedMLP, builder: Builder, name: str) -> RunMLP:
    activate = builder.bind(GATED[spec.activation], intermediate=spec.intermediate)
    return RunMLP(builder.linear(f"{name}.gate_up"), activate, builder.linear(f"{name}.down"))


def build_mlp(spec: MLP, builder: Builder, name: str) -> RunMLP:
    up, down = builder.linear(f"{name}.up"), builder.linear(f"{name}.down")
    if spec.activation == "xielu":
        own = {number: builder.weights.take(f"{name}.activation.{number}") for number in XIELU}
        activate = builder.bind(xielu, intermediate=spec.intermediate)
        return RunMLP(up, functools.partial(activate, **own), down)
    return RunMLP(up, builder.bind(PLAIN[spec.activation], intermediate=spec.intermediate), down)
