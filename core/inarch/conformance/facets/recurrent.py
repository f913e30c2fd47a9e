"""Recurrent states: runs that begin with a kept state or with nothing, and leave theirs elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.calls import Example, Outputs, normal
from inarch.hal.ops.convolution import causal_conv
from inarch.hal.ops.delta_rule import gated_delta_rule
from inarch.hal.ops.state_space import state_space_scan
from inarch.hal.state import NULL_SLOT

SLOTS = 9
LENGTHS = ((3, 1), (2, 5), (1, 70), (2, 131))  # n runs of L tokens
DELTA = {"key_heads": 2, "value_heads": 4, "key_dim": 32, "value_dim": 16}
MAMBA = {"heads": 4, "head_dim": 16, "groups": 2}


def examples(dtypes: tuple[torch.dtype, ...]) -> Iterator[Example]:
    for dtype in dtypes:
        for runs, length in LENGTHS:
            shape = f"{runs}x{length}"
            for bias in (False, True):
                make = functools.partial(_convolution, runs, length, bias, dtype)
                facts: dict[str, Any] = {"dtype": dtype, "channels": 96, "width": 4}
                name = f"{shape}-bias" if bias else shape
                yield _example(causal_conv, name, dtype, facts, make, "tails")
            for by_channel in (False, True):
                make = functools.partial(_delta, runs, length, by_channel, dtype)
                facts = {"dtype": dtype, **DELTA, "by_channel": by_channel}
                name = f"{shape}-by-channel" if by_channel else shape
                yield _example(gated_delta_rule, name, dtype, facts, make, "states")
            make = functools.partial(_scan, runs, length, dtype)
            facts = {"dtype": dtype, **MAMBA, "state_size": 24}
            yield _example(state_space_scan, shape, dtype, facts, make, "states")


def _example(
    op: Any, name: str, dtype: torch.dtype, facts: dict[str, Any], make: Any, state: str
) -> Example:
    return Example(op, name, dtype, facts, make, dead=(state,), seen=without_null)


def without_null(outputs: Outputs) -> Outputs:
    """What is in the null slot is nobody's."""
    out, states = outputs
    return out, states[NULL_SLOT + 1 :]


def _slots(rng: np.random.Generator, runs: int) -> dict[str, Tensor]:
    """The first run begins with nothing; the second, if any, writes where it read."""
    places = 1 + rng.permutation(SLOTS - 1)
    read, write = places[:runs].copy(), places[runs : 2 * runs].copy()
    read[0] = NULL_SLOT
    write[1:2] = read[1:2]
    return {"read": torch.from_numpy(read), "write": torch.from_numpy(write)}


def _convolution(
    runs: int, length: int, bias: bool, dtype: torch.dtype, rng: np.random.Generator
) -> dict[str, Any]:
    return {
        "x": normal(rng, (runs, length, 96), dtype),
        "weight": normal(rng, (96, 4), dtype),
        "bias": normal(rng, (96,), dtype) if bias else None,
        "tails": normal(rng, (SLOTS, 3, 96), dtype),
        **_slots(rng, runs),
    }


def _delta(
    runs: int, length: int, by_channel: bool, dtype: torch.dtype, rng: np.random.Generator
) -> dict[str, Any]:
    keys, values = DELTA["key_heads"], DELTA["value_heads"]
    key_dim, value_dim = DELTA["key_dim"], DELTA["value_dim"]
    decays = (runs, length, values, key_dim if by_channel else 1)
    return {
        "q": normal(rng, (runs, length, keys, key_dim), dtype),
        "k": normal(rng, (runs, length, keys, key_dim), dtype),
        "v": normal(rng, (runs, length, values, value_dim), dtype),
        "decay": -normal(rng, decays, torch.float32).abs() * 0.3,
        "beta": torch.sigmoid(normal(rng, (runs, length, values), torch.float32)).to(dtype),
        "states": normal(rng, (SLOTS, values, key_dim, value_dim), torch.float32),
        **_slots(rng, runs),
    }


def _scan(runs: int, length: int, dtype: torch.dtype, rng: np.random.Generator) -> dict[str, Any]:
    heads, dim, groups = MAMBA["heads"], MAMBA["head_dim"], MAMBA["groups"]
    return {
        "x": normal(rng, (runs, length, heads, dim), dtype),
        "dt": normal(rng, (runs, length, heads), torch.float32).abs() * 0.3,
        "a": -normal(rng, (heads,), torch.float32).abs(),
        "b": normal(rng, (runs, length, groups, 24), dtype),
        "c": normal(rng, (runs, length, groups, 24), dtype),
        "skip": normal(rng, (heads,), torch.float32),
        "states": normal(rng, (SLOTS, heads, dim, 24), torch.float32),
        **_slots(rng, runs),
    }
