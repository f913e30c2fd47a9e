"""Experts of a layer: as one kernel, or made of what the backend has of their parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.conformance.calls import normal
from inarch.conformance.case import Case, generator, require
from inarch.conformance.compare import check_close, check_dtype, worst
from inarch.conformance.memory import Arguments, poisoned
from inarch.conformance.subject import Candidate, Subject, dtype_name
from inarch.hal.experts import Experts, ExpertsSpec, ExpertWeights
from inarch.hal.ops.activation import clamped_swiglu, gelu_mul, silu_mul
from inarch.hal.reference.experts import ComposedExperts, grouped_specs
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear

TOLERANCE = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}  # of two products in a row
TOKENS = (1, 5, 40)
WEIGHTS = ("gate_up", "down", "gate_up_bias", "down_bias")
BASE = ExpertsSpec(6, 2, 64, 48, torch.float32)
KINDS = {
    "silu": BASE,
    "one-of-many": replace(BASE, experts=20, top_k=1),
    "gelu": replace(BASE, activation="gelu_tanh", top_k=3),
    "clamped": replace(BASE, activation="clamped_swiglu", alpha=1.702, limit=1.0, bias=True),
    "scaled-input": replace(BASE, scale_input=True, top_k=1),
}


def cases(subject: Subject) -> Iterator[Case]:
    for dtype in subject.dtypes():
        for kind, base in KINDS.items():
            spec = replace(base, dtype=dtype)
            composed = functools.partial(_composed, subject, spec)
            for candidate in subject.candidates("experts", vars(spec), composed):
                for tokens in TOKENS:
                    name = f"{kind}-{tokens}-{dtype_name(dtype)}"
                    run = functools.partial(_check, subject, candidate, spec, tokens, name)
                    kernel = candidate.name
                    yield Case(subject.level, "experts", name, run, kernel, dtype_name(dtype))


def facts(subject: Subject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for dtype in subject.dtypes():
        for base in KINDS.values():
            yield "experts", vars(replace(base, dtype=dtype))


def _composed(subject: Subject, spec: ExpertsSpec) -> Experts:
    """As models compose them."""
    dispatcher = subject.dispatcher()

    def grouped(part: Any) -> Any:
        return dispatcher.select("grouped_linear", ReferenceGroupedLinear, **vars(part))()

    def bound(op: Any, **limits: Any) -> Any:
        return dispatcher.bind(op, dtype=spec.dtype, intermediate=spec.intermediate, **limits)

    limits = {"alpha": spec.alpha, "limit": spec.limit}
    match spec.activation:
        case "silu":
            activate = bound(silu_mul)
        case "gelu_tanh":
            activate = bound(gelu_mul)
        case _:
            activate = functools.partial(bound(clamped_swiglu, **limits), **limits)
    gate_up, down = map(grouped, grouped_specs(spec))
    return ComposedExperts(gate_up, down, activate)


@torch.inference_mode()
def _check(
    subject: Subject, candidate: Candidate, spec: ExpertsSpec, tokens: int, name: str
) -> str:
    kernel: Experts = candidate.loaded()()
    require(isinstance(kernel.capturable, bool), f"capturable is {kernel.capturable!r}")
    host = _inputs(spec, tokens, name)
    arguments = Arguments(subject, host, weights=WEIGHTS)
    values = arguments.values
    weights = ExpertWeights(
        values["gate_up"], values["down"], values.get("gate_up_bias"), values.get("down_bias")
    )
    with poisoned(subject):
        packed = kernel.prepack(spec, weights)
        out = kernel.apply(values["x"], values["experts"], values["weights"], packed)
    check_dtype("the output", out, spec.dtype)
    tolerance = TOLERANCE[dtype_name(spec.dtype)]
    error = check_close("the output", subject.download(out), _oracle(spec, host), tolerance)
    arguments.check(())
    return worst([error])


def _inputs(spec: ExpertsSpec, tokens: int, name: str) -> dict[str, Tensor]:
    rng = generator("experts", name)
    count, hidden, inner = spec.experts, spec.hidden, spec.intermediate

    def weight(*shape: int) -> Tensor:
        scale = float(shape[-1]) ** -0.5
        numbers: Tensor = normal(rng, shape, torch.float32) * scale
        return numbers.to(spec.dtype)

    scores = torch.from_numpy(rng.random((tokens, count)))
    host = {
        "x": normal(rng, (tokens, hidden), spec.dtype),
        "experts": scores.topk(spec.top_k).indices,
        "weights": torch.from_numpy(rng.uniform(0.1, 1, (tokens, spec.top_k))).float(),
        "gate_up": weight(count, 2 * inner, hidden),
        "down": weight(count, hidden, inner),
    }
    if spec.bias:
        host["gate_up_bias"] = normal(rng, (count, 2 * inner), spec.dtype)
        host["down_bias"] = normal(rng, (count, hidden), spec.dtype)
    return host


def _oracle(spec: ExpertsSpec, host: Mapping[str, Tensor]) -> Tensor:
    """One token and expert at a time, in float64."""
    wide = {k: v.double() if v.is_floating_point() else v for k, v in host.items()}
    out = torch.zeros_like(wide["x"])
    for token, chosen in enumerate(wide["experts"].tolist()):
        for place, expert in enumerate(chosen):
            share, x = wide["weights"][token, place], wide["x"][token]
            if spec.scale_input:
                x, share = x * share, torch.ones(())
            gate_up = wide["gate_up"][expert] @ x
            if spec.bias:
                gate_up = gate_up + wide["gate_up_bias"][expert]
            y = wide["down"][expert] @ ACTIVATIONS[spec.activation](spec, *gate_up.chunk(2))
            if spec.bias:
                y = y + wide["down_bias"][expert]
            out[token] += share * y
    return out


def _clamped(spec: ExpertsSpec, gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.clamp(max=spec.limit), up.clamp(-float(spec.limit or 0), spec.limit)
    return gate * torch.sigmoid(spec.alpha * gate) * (up + 1)


ACTIVATIONS: dict[str, Callable[[ExpertsSpec, Tensor, Tensor], Tensor]] = {
    "silu": lambda spec, gate, up: F.silu(gate) * up,
    "gelu_tanh": lambda spec, gate, up: F.gelu(gate, approximate="tanh") * up,
    "clamped_swiglu": _clamped,
}
