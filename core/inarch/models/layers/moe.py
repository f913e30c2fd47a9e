"""Runs a mixture of experts: the router, the experts it chose, and those that serve every token."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from inarch.hal.experts import ExpertsSpec, ExpertWeights
from inarch.hal.ops.activation import clamped_swiglu
from inarch.hal.ops.routing import route, sparse_mixer
from inarch.hal.reference.experts import ComposedExperts, grouped_specs
from inarch.models.builder import Builder, Projection, RunExperts
from inarch.models.description import ClampedSwiglu, MixtureOfExperts, Router, SparseMixer
from inarch.models.layers.mlp import GATED, RunMLP, build_gated_mlp

OWN = ("correction", "bias", "float32")  # what the op of a router does not ask for

Route = Callable[[Tensor], tuple[Tensor, Tensor]]  # x [T, hidden] -> experts and weights [T, k]


@dataclass(frozen=True, eq=False)
class RunRouter:
    """choose: logits [T, E] -> experts and weights [T, k]."""

    logits: Projection
    choose: Route
    float32: bool

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.choose(self.logits(x.float() if self.float32 else x))


@dataclass(frozen=True, eq=False)
class MoE:
    """x [T, hidden] -> [T, hidden]."""

    route: Route
    experts: RunExperts
    shared: RunMLP | None
    shared_gate: Projection | None

    def __call__(self, x: Tensor) -> Tensor:
        out = self.experts(x, *self.route(x))
        if self.shared is None:
            return out
        shared = self.shared(x)
        if self.shared_gate is not None:
            shared = torch.sigmoid(self.shared_gate(x)) * shared
        return out + shared


def build_moe(spec: MixtureOfExperts, builder: Builder, name: str) -> MoE:
    weights = _weights(spec, builder, f"{name}.experts")
    composed = functools.partial(compose, builder=builder)
    return MoE(
        route=build_router(spec.router, builder, f"{name}.router"),
        experts=builder.experts(experts_spec(spec, builder), weights, composed),
        shared=None
        if spec.shared is None
        else build_gated_mlp(spec.shared, builder, f"{name}.shared"),
        shared_gate=builder.linear(f"{name}.shared_gate") if spec.shared_gate else None,
    )


def build_router(spec: Router | SparseMixer, builder: Builder, name: str) -> Route:
    logits = builder.linear(name)
    match spec:
        case SparseMixer(jitter):
            mixer = builder.bind(sparse_mixer, jitter=jitter)
            return RunRouter(logits, functools.partial(mixer, jitter=jitter), float32=False)
        case Router():
            rules = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in OWN}
            correction = builder.weights.take(f"{name}.correction") if spec.correction else None
            bound = builder.bind(route, float32=spec.float32, **rules)
            choose = functools.partial(bound, correction=correction, **rules)
            return RunRouter(logits, choose, spec.float32)


def experts_spec(spec: MixtureOfExperts, builder: Builder) -> ExpertsSpec:
    found = ExpertsSpec(
        experts=spec.experts,
        top_k=spec.router.top_k,
        hidden=builder.description.hidden,
        intermediate=spec.intermediate,
        dtype=builder.dtype,
        bias=spec.bias,
        scale_input=spec.scale_input,
    )
    match spec.activation:
        case ClampedSwiglu(alpha, limit):
            return replace(found, activation="clamped_swiglu", alpha=alpha, limit=limit)
        case name:
            return replace(found, activation=name)


def compose(spec: ExpertsSpec, builder: Builder) -> ComposedExperts:
    gate_up, down = map(builder.grouped_linear, grouped_specs(spec))
    return ComposedExperts(gate_up, down, _activation(spec, builder), builder.device)


def _activation(spec: ExpertsSpec, builder: Builder) -> Callable[[Tensor], Tensor]:
    if spec.activation in GATED:
        return builder.bind(GATED[spec.activation], intermediate=spec.intermediate)
    limits = {"alpha": spec.alpha, "limit": spec.limit}
    bound = builder.bind(clamped_swiglu, intermediate=spec.intermediate, **limits)
    return functools.partial(bound, **limits)


def _weights(spec: MixtureOfExperts, builder: Builder, name: str) -> ExpertWeights:
    take = builder.weights.take
    return ExpertWeights(
        gate_up=take(f"{name}.gate_up.weight"),
        down=take(f"{name}.down.weight"),
        gate_up_bias=take(f"{name}.gate_up.bias") if spec.bias else None,
        down_bias=take(f"{name}.down.bias") if spec.bias else None,
    )
