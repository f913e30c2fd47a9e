"""Runs feed-forwards: up (and the gate, in the same product), the activation, then down."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
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
from inarch.models.builder import Builder
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

    up: Callable[[Tensor], Tensor]
    activate: Callable[[Tensor], Tensor]
    down: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self.activate(self.up(x)))


def build_gated_mlp(spec: GatedMLP, builder: Builder, name: str) -> RunMLP:
    activate = builder.bind(GATED[spec.activation], intermediate=spec.intermediate)
    run = RunMLP(
        builder.linear(f"{name}.gate_up"), activate, builder.linear(f"{name}.down", ends_pair=True)
    )
    return run if spec.gate_scale == spec.out_scale == 1.0 else _scaled(run, spec, builder)


def _scaled(run: RunMLP, spec: GatedMLP, builder: Builder) -> RunMLP:
    scales = torch.ones(2, spec.intermediate)
    scales[0] = spec.gate_scale
    gate_up = builder.on_device(scales.flatten())
    return RunMLP(
        lambda x: run.up(x) * gate_up, run.activate, lambda x: run.down(x) * spec.out_scale
    )


def build_mlp(spec: MLP, builder: Builder, name: str) -> RunMLP:
    up, down = builder.linear(f"{name}.up"), builder.linear(f"{name}.down", ends_pair=True)
    if spec.activation == "xielu":
        own = {number: builder.weights.take(f"{name}.activation.{number}") for number in XIELU}
        activate = builder.bind(xielu, intermediate=spec.intermediate)
        return RunMLP(up, functools.partial(activate, **own), down)
    return RunMLP(up, builder.bind(PLAIN[spec.activation], intermediate=spec.intermediate), down)
