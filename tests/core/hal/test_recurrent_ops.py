"""Recurrences against their definitions, one token at a time in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inarch.hal.ops.convolution import causal_conv
from inarch.hal.ops.delta_rule import gated_delta_rule
from inarch.hal.ops.gated_norm import gated_rms_norm
from inarch.hal.ops.state_space import state_space_scan

LENGTHS = st.sampled_from([1, 2, 15, 16, 17, 64, 65, 130, 200])
SEEDS = st.integers(0, 2**32 - 1)
READ, WRITE = torch.tensor([3, 0]), torch.tensor([1, 3])  # the second run begins with zeros
SLOTS = 5


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def assert_close(found: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=2e-5)


def begun(states: Tensor) -> np.ndarray:
    """What the two runs begin with."""
    return np.stack((states[3].double().numpy(), np.zeros(states.shape[1:])))


def assert_written(states: Tensor, before: Tensor, expected: np.ndarray) -> None:
    """The new states are where they belong, and nothing else was touched."""
    assert_close(states[WRITE], expected)
    untouched = torch.tensor([0, 2, 4])
    torch.testing.assert_close(states[untouched], before[untouched], rtol=0, atol=0)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6)


@settings(max_examples=25, deadline=None)
@given(length=LENGTHS, seed=SEEDS, by_feature=st.booleans(), strong=st.booleans())
def test_the_delta_rule_corrects_what_its_decayed_state_holds(
    length: int, seed: int, by_feature: bool, strong: bool
) -> None:
    key_heads, heads, dk, dv = 2, 4, 5, 3
    q, k = (normal(seed + i, 2, length, key_heads, dk) for i in range(2))
    v, beta = normal(seed + 2, 2, length, heads, dv), normal(seed + 3, 2, length, heads).sigmoid()
    decay = -normal(seed + 4, 2, length, heads, dk if by_feature else 1).abs()
    decay *= 20.0 if strong else 0.1  # strong ones vanish: no quotient of them may be formed
    states = normal(seed + 5, SLOTS, heads, dk, dv)
    state, before = begun(states), states.clone()
    wide = [np.repeat(unit(x.double().numpy()), heads // key_heads, axis=2) for x in (q, k)]
    expected = np.zeros(v.shape)
    for n in range(2):
        for t in range(length):
            for h in range(heads):
                key, query = wide[1][n, t, h], wide[0][n, t, h] / math.sqrt(dk)
                s = state[n, h] * np.exp(decay[n, t, h].double().numpy())[:, None]
                error = v[n, t, h].double().numpy() - key @ s
                state[n, h] = s + float(beta[n, t, h]) * np.outer(key, error)
                expected[n, t, h] = query @ state[n, h]
    out, states = gated_delta_rule(q, k, v, decay, beta, states, READ, WRITE)
    assert_close(out, expected)
    assert_written(states, before, state)


@settings(max_examples=25, deadline=None)
@given(length=LENGTHS, seed=SEEDS, strong=st.booleans())
def test_the_scan_is_a_decaying_sum_of_outer_products(length: int, seed: int, strong: bool) -> None:
    heads, dim, groups, size = 4, 3, 2, 5
    x, dt = normal(seed, 2, length, heads, dim), normal(seed + 1, 2, length, heads).abs()
    b, c = (normal(seed + i, 2, length, groups, size) for i in (2, 3))
    a, skip = -normal(seed + 4, heads).abs() * (30 if strong else 0.2), normal(seed + 5, heads)
    states = normal(seed + 6, SLOTS, heads, dim, size)
    state, before = begun(states), states.clone()
    expected = np.zeros(x.shape)
    wide = [np.repeat(y.double().numpy(), heads // groups, axis=2) for y in (b, c)]
    for n in range(2):
        for t in range(length):
            for h in range(heads):
                step, token = float(dt[n, t, h]), x[n, t, h].double().numpy()
                decayed = state[n, h] * math.exp(step * float(a[h]))
                state[n, h] = decayed + step * np.outer(token, wide[0][n, t, h])
                expected[n, t, h] = state[n, h] @ wide[1][n, t, h] + float(skip[h]) * token
    out, states = state_space_scan(x, dt, a, b, c, skip, states, READ, WRITE)
    assert_close(out, expected)
    assert_written(states, before, state)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_goes_on_where_its_slot_ends(length: int, bias: bool) -> None:
    channels, width = 6, 4
    x, weight = normal(1, 2, length, channels), normal(2, channels, width)
    shift = normal(3, channels) if bias else None
    tails = normal(4, SLOTS, width - 1, channels)
    before = tails.clone()
    inputs = np.concatenate((begun(tails), x.double().numpy()), axis=1)
    windows = np.stack([inputs[:, t : t + width] for t in range(length)], axis=1)
    total = (windows * weight.double().numpy().T).sum(2) + (0 if shift is None else shift.numpy())
    out, tails = causal_conv(x, weight, shift, tails, READ, WRITE)
    assert_close(out, total / (1 + np.exp(-total)))
    assert_written(tails, before, inputs[:, length:])


@pytest.mark.parametrize("gate_first", [False, True])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_gated_norm_is_a_norm_of_each_group_beside_a_gate(
    gate_first: bool, sigmoid: bool
) -> None:
    x, gate, weight = normal(1, 7, 12), normal(2, 7, 12), normal(3, 12)
    wide = gate.double().numpy()
    opened = (1 if sigmoid else wide) / (1 + np.exp(-wide))
    y = x.double().numpy() * (opened if gate_first else 1)
    groups = y.reshape(7, 3, 4)
    y = (groups / np.sqrt((groups**2).mean(-1, keepdims=True) + 1e-5)).reshape(7, 12)
    y = y * weight.numpy() * (1 if gate_first else opened)
    found = gated_rms_norm(x, gate, weight, 1e-5, group=4, gate_first=gate_first, sigmoid=sigmoid)
    assert_close(found, y)


@pytest.mark.parametrize("cut", [1, 63, 64, 70])
def test_a_run_may_be_cut_anywhere(cut: int) -> None:
    """What is left behind at a cut is what the run would have had there."""

    def run(start: int, end: int, states: Tensor, read: int, write: int) -> tuple[Tensor, Tensor]:
        parts = (x[:, start:end] for x in inputs)
        return gated_delta_rule(*parts, states, torch.tensor([read]), torch.tensor([write]))

    inputs = [normal(i, 1, 100, 2, 4) for i in range(3)]
    inputs += [-normal(4, 1, 100, 2, 1).abs(), normal(5, 1, 100, 2).sigmoid()]
    whole, states = run(0, 100, torch.zeros(SLOTS, 2, 4, 4), 0, 1)
    last = states[1].clone()
    first, states = run(0, cut, states, 0, 2)
    second, states = run(cut, 100, states, 2, 3)
    torch.testing.assert_close(torch.cat((first, second), 1), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(states[3], last, rtol=0, atol=1e-5)
