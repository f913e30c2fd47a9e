"""Recurrent ops of this backend against the reference, which puts chunks together as matrices."""

from __future__ import annotations

import pytest
import torch

from inarch.hal.ops.activation import xielu
from inarch.hal.ops.convolution import causal_conv
from inarch.hal.ops.delta_rule import gated_delta_rule
from inarch.hal.ops.gated_norm import gated_rms_norm
from inarch.hal.ops.state_space import state_space_scan
from inarch_intel_cpu.ops import Ops
from inarch_intel_cpu.recurrent import Recurrent

SLOTS = 7
RUNS = [(1, 1), (3, 1), (2, 5), (1, 70)]  # n runs of L tokens
TOLERANCE = {torch.float32: 3e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slots(runs):
    """The first run begins with nothing; the second writes where it read."""
    read, write = torch.tensor([0, 3, 5][:runs]), torch.tensor([1, 3, 6][:runs])
    return read, write


def compare(own, op, inputs, state, dtype):
    """Both write the state that they are given, each its own."""
    mine, theirs = state.clone(), state.clone()
    out, after = own(*inputs, mine)
    wanted, expected = op(*inputs, theirs)
    assert after is mine
    assert out.dtype == wanted.dtype
    tolerance = TOLERANCE[dtype]
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(out, wanted, **close)
    torch.testing.assert_close(after[1:], expected[1:], **close)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("runs", "length"), RUNS)
def test_convolutions_go_on_from_their_tails(native, runs, length, dtype):
    channels, places = 300, slots(runs)
    weight = normal(channels, 4).to(dtype)
    bias = normal(channels, seed=1).to(dtype) if length > 1 else None
    x, tails = normal(runs, length, channels, seed=2).to(dtype), normal(SLOTS, 3, channels, seed=3)
    own = Recurrent(native).causal_conv

    def reach(op):
        return lambda *given: op(*given, *places)

    compare(reach(own), reach(causal_conv), (x, weight, bias), tails.to(dtype), dtype)


def heads(*shape, seed, dtype):
    """A part of a projection: its tokens lie apart."""
    wide = normal(*shape[:2], 2, *shape[2:], seed=seed).to(dtype)
    return wide[:, :, 0]


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize(("runs", "length"), RUNS)
def test_the_delta_rule_token_by_token(native, runs, length, by_channel, dtype):
    key_heads, value_heads, key_dim, value_dim = 2, 4, 24, 40
    q, k = (heads(runs, length, key_heads, key_dim, seed=n, dtype=dtype) for n in (0, 1))
    v = heads(runs, length, value_heads, value_dim, seed=2, dtype=dtype)
    decay = -normal(runs, length, value_heads, key_dim if by_channel else 1, seed=3).abs() * 0.3
    beta = normal(runs, length, value_heads, seed=4).sigmoid().to(dtype)
    states, places = normal(SLOTS, value_heads, key_dim, value_dim, seed=5), slots(runs)

    def reach(op):
        return lambda *given: op(*given, *places)

    own = Recurrent(native).gated_delta_rule
    compare(reach(own), reach(gated_delta_rule), (q, k, v, decay, beta), states, dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("runs", "length"), RUNS)
def test_the_scan_token_by_token(native, runs, length, dtype):
    count, dim, groups, size = 4, 20, 2, 24
    x = heads(runs, length, count, dim, seed=0, dtype=dtype)
    b, c = (heads(runs, length, groups, size, seed=n, dtype=dtype) for n in (1, 2))
    dt, a = normal(runs, length, count, seed=3).abs() * 0.3, -normal(count, seed=4).abs()
    skip, states, places = (
        normal(count, seed=5),
        normal(SLOTS, count, dim, size, seed=6),
        slots(runs),
    )

    def reach(op):
        return lambda x, dt, a, b, c, states: op(x, dt, a, b, c, skip, states, *places)

    own = Recurrent(native).state_space_scan
    compare(reach(own), reach(state_space_scan), (x, dt, a, b, c), states, dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("options", [{}, {"gate_first": True}, {"sigmoid": True}], ids=str)
def test_norms_beside_a_gate(native, options, dtype):
    x, gate = normal(3, 5, 36).to(dtype), normal(3, 5, 36, seed=1).to(dtype)
    weight = normal(36, seed=2).to(dtype)
    found, wanted = (
        op(x, gate, weight, 1e-6, group=12, **options)
        for op in (Recurrent(native).gated_rms_norm, gated_rms_norm)
    )
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted, rtol=TOLERANCE[dtype], atol=1e-5)


def test_a_parabola_above_zero_and_an_exponential_below(native):
    near = torch.tensor([0.0, -1e-7, -1e-6, -1e-4, -0.01, -0.3, -0.36, -3.0, -90.0, 1e-5, 2.0])
    x = torch.cat((near, normal(190) * 3))
    numbers = [torch.tensor([value]) for value in (0.3, -0.2, 0.5, -1e-6)]
    found, wanted = Ops(native).xielu(x, *numbers), xielu(x, *numbers)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-7)
