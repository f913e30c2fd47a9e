"""Activations of feed-forward layers, plain and gated, far from zero on both sides too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from inarch.conformance.calls import Example, normal
from inarch.hal.op import Op
from inarch.hal.ops import activation

GATED = (activation.silu_mul, activation.gelu_mul, activation.gelu_exact_mul)
PLAIN = (
    activation.silu,
    activation.gelu,
    activation.gelu_tanh,
    activation.relu,
    activation.relu_squared,
)
SHAPES = ((1, 96), (33, 512), (3, 4864))  # [T, N]
LIMITS = {"alpha": 1.702, "limit": 2.5}


def examples(dtypes: tuple[torch.dtype, ...]) -> Iterator[Example]:
    for dtype in dtypes:
        for tokens, features in SHAPES:
            for op in GATED:
                yield _activation(op, tokens, features, dtype, inputs=2 * features)
        for op in PLAIN:
            yield _activation(op, 5, 512, dtype, inputs=512)
        yield _activation(activation.clamped_swiglu, 17, 128, dtype, inputs=256, **LIMITS)
        yield _xielu(dtype)


def _activation(
    op: Op[..., Any],
    tokens: int,
    features: int,
    dtype: torch.dtype,
    *,
    inputs: int,
    **limits: float,
) -> Example:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        return {"x": normal(rng, (tokens, inputs), dtype) * 4, **limits}

    facts = {"dtype": dtype, "intermediate": features, **limits}
    return Example(op, f"{tokens}x{features}", dtype, facts, make)


def _xielu(dtype: torch.dtype) -> Example:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        numbers = {"alpha_p": 0.4, "alpha_n": 0.3, "beta": 0.5, "eps": -1e-6}
        scalars = {name: torch.tensor([value]).to(dtype) for name, value in numbers.items()}
        return {"x": normal(rng, (9, 160), dtype) * 3, **scalars}

    facts = {"dtype": dtype, "intermediate": 160}
    return Example(activation.xielu, "9x160", dtype, facts, make)
