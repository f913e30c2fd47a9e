"""Rotary embedding: both layouts, heads rotated in part, positions in any order, fused projections."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.calls import Example, normal
from inarch.hal.ops.rotary import qk_norm_rope, rope

POSITIONS = 512
EPS = 1e-6


@dataclass(frozen=True)
class Heads:
    q_heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int
    interleaved: bool = False

    @property
    def name(self) -> str:
        layout = "pairs" if self.interleaved else "halves"
        return f"{self.q_heads}-{self.kv_heads}x{self.head_dim}-{self.rotary_dim}-{layout}"


HEADS = (
    Heads(4, 2, 64, 64),
    Heads(14, 2, 64, 64),
    Heads(8, 8, 128, 128),
    Heads(4, 1, 128, 64),
    Heads(4, 2, 80, 40),
    Heads(4, 2, 64, 64, True),
    Heads(4, 1, 64, 32, True),
)


def examples(dtypes: tuple[torch.dtype, ...]) -> Iterator[Example]:
    for dtype in dtypes:
        for heads in HEADS:
            for tokens in (1, 19):
                yield _example(heads, tokens, dtype, norm=False)
                yield _example(heads, tokens, dtype, norm=True)


def _example(heads: Heads, tokens: int, dtype: torch.dtype, *, norm: bool) -> Example:
    facts = {"dtype": dtype, **vars(heads)}
    if norm:
        facts |= {"hidden": heads.head_dim, "weight_dtype": dtype}
    return Example(
        qk_norm_rope if norm else rope,
        f"{heads.name}-{tokens}",
        dtype,
        facts,
        functools.partial(_make, heads, tokens, dtype, norm),
        dead=("q", "k"),
        strided=("q", "k"),
    )


def _make(
    heads: Heads, tokens: int, dtype: torch.dtype, norm: bool, rng: np.random.Generator
) -> dict[str, Any]:
    dim = heads.head_dim
    values: dict[str, Any] = {
        "q": normal(rng, (tokens, heads.q_heads, dim), dtype),
        "k": normal(rng, (tokens, heads.kv_heads, dim), dtype),
    }
    if norm:
        values |= {name: 1 + 0.2 * normal(rng, (dim,), dtype) for name in ("q_weight", "k_weight")}
        values["eps"] = EPS
    values["positions"] = torch.from_numpy(rng.integers(0, POSITIONS, tokens))
    return values | {"cos_sin": cos_sin(heads.rotary_dim), "interleaved": heads.interleaved}


def cos_sin(dim: int) -> Tensor:
    """float32 [POSITIONS, dim]: the plain table of that many features."""
    speeds = 10000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(POSITIONS, dtype=torch.float64)[:, None] * speeds
    return torch.cat((angles.cos(), angles.sin()), -1).float()
