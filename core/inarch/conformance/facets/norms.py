"""Normalisations: rows that fill a kernel's tiles and rows that do not, alone and with a residual."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from inarch.conformance.calls import Example, normal
from inarch.hal.op import Op
from inarch.hal.ops.gated_norm import gated_rms_norm
from inarch.hal.ops.norm import add_layer_norm, add_rms_norm, layer_norm, rms_norm

SHAPES = ((1, 64), (5, 896), (37, 1024), (3, 4096))  # [T, N]
EPS = 1e-6


def examples(dtypes: tuple[torch.dtype, ...]) -> Iterator[Example]:
    for dtype in dtypes:
        for op in (rms_norm, add_rms_norm, layer_norm, add_layer_norm):
            for shape in SHAPES:
                yield _norm(op, shape, dtype, dtype)
            if dtype != torch.float32:
                yield _norm(op, (7, 256), dtype, torch.float32)
        yield _norm(rms_norm, (4, 3, 128), dtype, dtype)  # of heads
        for group, first, sigmoid in ((128, False, False), (64, True, False), (128, False, True)):
            yield _gated(dtype, group, first, sigmoid)


def _norm(
    op: Op[..., Any], shape: tuple[int, ...], dtype: torch.dtype, weight_dtype: torch.dtype
) -> Example:
    name = "x".join(map(str, shape)) + ("" if weight_dtype == dtype else "-wide-weight")
    return Example(
        op,
        name,
        dtype,
        {"dtype": dtype, "hidden": shape[-1], "weight_dtype": weight_dtype},
        functools.partial(_make_norm, op.name, shape, dtype, weight_dtype),
        dead=("x", "residual") if op.name.startswith("add_") else (),
    )


def _make_norm(
    op: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    weight_dtype: torch.dtype,
    rng: np.random.Generator,
) -> dict[str, Any]:
    values: dict[str, Any] = {"x": normal(rng, shape, dtype) * 3}
    if op.startswith("add_"):
        values["residual"] = normal(rng, shape, dtype)
    values["weight"] = 1 + 0.2 * normal(rng, shape[-1:], weight_dtype)
    if op.endswith("layer_norm"):
        values["bias"] = normal(rng, shape[-1:], weight_dtype)
    return values | {"eps": EPS}


def _gated(dtype: torch.dtype, group: int, first: bool, sigmoid: bool) -> Example:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        rules = {"group": group, "gate_first": first, "sigmoid": sigmoid}
        x, gate = normal(rng, (9, 128), dtype), normal(rng, (9, 128), dtype)
        return {"x": x, "gate": gate, "weight": normal(rng, (128,), dtype), "eps": EPS, **rules}

    words = ["gate-first"] * first + ["sigmoid"] * sigmoid
    name = "-".join([f"group-{group}", *words])
    facts = {"dtype": dtype, "hidden": 128, "group": group}
    return Example(gated_rms_norm, name, dtype, facts, make)
