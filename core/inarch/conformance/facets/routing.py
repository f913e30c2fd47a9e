"""Routers: which experts, and with what weights, under every rule that models have."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.calls import Example, Outputs
from inarch.conformance.case import require
from inarch.hal.ops.routing import route, sparse_mixer

DEFAULTS: dict[str, Any] = {
    "scores": "softmax",
    "over_chosen": False,
    "renormalise": False,
    "least_sum": 1e-20,
    "scale": 1.0,
    "groups": 1,
    "top_groups": 1,
    "group_experts": 1,
}
RULES: dict[str, tuple[int, dict[str, Any]]] = {  # name -> experts, what differs
    "softmax": (8, {"top_k": 2}),
    "softmax-renormalised": (64, {"top_k": 8, "renormalise": True}),
    "over-chosen": (32, {"top_k": 4, "over_chosen": True}),
    "sigmoid-one": (16, {"top_k": 1, "scores": "sigmoid"}),
    "sigmoid-scaled": (20, {"top_k": 3, "scores": "sigmoid", "renormalise": True, "scale": 2.5}),
    "groups": (32, {"top_k": 4, "groups": 8, "top_groups": 3}),
    "groups-corrected": (
        64,
        {
            "top_k": 8,
            "scores": "sigmoid",
            "renormalise": True,
            "groups": 8,
            "top_groups": 4,
            "group_experts": 2,
            "scale": 2.5,
        },
    ),
}


def examples(dtypes: tuple[torch.dtype, ...]) -> Iterator[Example]:
    for dtype in dtypes:
        for name, (experts, changes) in RULES.items():
            rules = {**DEFAULTS, **changes}
            corrected = "corrected" in name or "sigmoid" in name
            for tokens in (1, 21):
                make = functools.partial(_make, tokens, experts, rules, corrected, dtype)
                facts = {"dtype": dtype, "float32": dtype == torch.float32, **rules}
                seen = functools.partial(by_expert, experts)
                yield Example(route, f"{name}-{tokens}", dtype, facts, make, seen=seen)
        yield _mixer(dtype)


def _make(
    tokens: int,
    experts: int,
    rules: Mapping[str, Any],
    corrected: bool,
    dtype: torch.dtype,
    rng: np.random.Generator,
) -> dict[str, Any]:
    correction = torch.from_numpy(rng.uniform(-0.2, 0.2, experts)).float() if corrected else None
    return {"logits": apart(rng, tokens, experts, dtype), "correction": correction, **rules}


def apart(rng: np.random.Generator, tokens: int, experts: int, dtype: torch.dtype) -> Tensor:
    """Logits [T, E] that differ by more than rounding does: which are the best is beyond doubt."""
    spaced = np.linspace(-2, 2, experts) + rng.uniform(-0.1, 0.1, experts) / experts
    rows = np.stack([rng.permutation(spaced) for _ in range(tokens)])
    return torch.from_numpy(rows).to(dtype)


def by_expert(count: int, outputs: Outputs) -> Outputs:
    """Experts [T, k] and their weights as one [T, count], since their order says nothing."""
    experts, weights = outputs
    require(tuple(experts.shape) == tuple(weights.shape), "experts and weights differ in shape")
    inside = (experts >= 0) & (experts < count)
    require(bool(inside.all()), f"an expert is none of 0..{count - 1}")
    empty = weights.new_zeros((len(weights), count))
    return (empty.scatter_add(1, experts, weights),)


def _mixer(dtype: torch.dtype) -> Example:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        return {"logits": apart(rng, 13, 16, dtype), "jitter": 0.05}

    facts = {"dtype": dtype, "jitter": 0.05}
    seen = functools.partial(by_expert, 16)
    return Example(sparse_mixer, "13x16", dtype, facts, make, seen=seen)
