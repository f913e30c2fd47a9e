"""Norms, activations and rotary embedding against plain formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inarch.hal.ops import OPS
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
from inarch.hal.ops.norm import add_layer_norm, add_rms_norm, layer_norm, rms_norm
from inarch.hal.ops.rotary import qk_norm_rope, rope

DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 33)


def normal(seed: int, dtype: torch.dtype, *shape: int) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return torch.from_numpy(values).to(dtype)


def assert_close(got: Tensor, expected: np.ndarray, dtype: torch.dtype, op: str) -> None:
    """Within the tolerance that the op itself declares, relative to values of about 1."""
    assert got.dtype == dtype
    tolerance = OPS[op].tolerance[str(dtype).removeprefix("torch.")]
    np.testing.assert_allclose(got.double().numpy(), expected, rtol=tolerance, atol=tolerance)


def normalised(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    rows = [row / math.sqrt(sum(v * v for v in row) / len(row) + eps) for row in x]
    return np.array(rows) * weight


@settings(max_examples=40, deadline=None)
@given(tokens=SIZES, features=SIZES, dtype=DTYPES, seed=SEEDS)
def test_rms_norm_divides_by_the_root_of_the_mean_square(
    tokens: int, features: int, dtype: torch.dtype, seed: int
) -> None:
    x, weight = normal(seed, dtype, tokens, features), normal(seed + 1, dtype, features)
    expected = normalised(x.double().numpy(), weight.double().numpy(), 1e-5)
    assert_close(rms_norm(x, weight, 1e-5), expected, dtype, "rms_norm")


def test_rms_norm_of_large_half_precision_values_does_not_overflow() -> None:
    x = torch.full((1, 8), 60000.0, dtype=torch.float16)
    normed = rms_norm(x, torch.ones(8, dtype=torch.float16), 1e-5)
    torch.testing.assert_close(normed, torch.ones_like(x))


@settings(max_examples=20, deadline=None)
@given(tokens=SIZES, features=SIZES, dtype=DTYPES, seed=SEEDS)
def test_add_rms_norm_returns_the_normed_sum_and_the_sum(
    tokens: int, features: int, dtype: torch.dtype, seed: int
) -> None:
    x, residual = normal(seed, dtype, 2, tokens, features)
    weight = normal(seed + 1, dtype, features)
    total = (x.double() + residual.double()).to(dtype)
    normed, summed = add_rms_norm(x.clone(), residual.clone(), weight, 1e-6)
    torch.testing.assert_close(summed, total, rtol=0, atol=0)
    expected = normalised(total.double().numpy(), weight.double().numpy(), 1e-6)
    assert_close(normed, expected, dtype, "add_rms_norm")


def test_a_float32_weight_of_a_norm_is_not_rounded_and_nothing_before_it() -> None:
    x, weight = normal(0, torch.bfloat16, 9, 256), normal(1, torch.float32, 256)
    exact = normalised(x.double().numpy(), weight.double().numpy(), 1e-5)
    once = torch.from_numpy(exact).to(torch.bfloat16)
    assert (rms_norm(x, weight, 1e-5) == once).double().mean() > 0.99
    assert (rms_norm(x, weight.bfloat16(), 1e-5) == once).double().mean() < 0.9


@settings(max_examples=30, deadline=None)
@given(tokens=SIZES, features=SIZES, dtype=DTYPES, seed=SEEDS, shifted=st.booleans())
def test_layer_norm_subtracts_the_mean_and_divides_by_the_deviation(
    tokens: int, features: int, dtype: torch.dtype, seed: int, shifted: bool
) -> None:
    x, residual = normal(seed, dtype, 2, tokens, features)
    weight, shift = normal(seed + 1, dtype, 2, features)
    bias = shift if shifted else None
    for wide, got, op in (
        (x, layer_norm(x, weight, bias, 1e-5), "layer_norm"),
        (x + residual, add_layer_norm(x, residual, weight, bias, 1e-5)[0], "add_layer_norm"),
    ):
        centred = wide.double().numpy() - wide.double().numpy().mean(-1, keepdims=True)
        expected = normalised(centred, weight.double().numpy(), 1e-5)
        assert_close(got, expected + (shift.double().numpy() if shifted else 0), dtype, op)


@settings(max_examples=30, deadline=None)
@given(tokens=SIZES, features=SIZES, dtype=DTYPES, seed=SEEDS)
def test_activations_without_a_gate(
    tokens: int, features: int, dtype: torch.dtype, seed: int
) -> None:
    x = normal(seed, dtype, tokens, features)
    wide = x.double().numpy()
    erf = np.vectorize(math.erf)
    tanh = np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
    assert_close(silu(x), wide / (1 + np.exp(-wide)), dtype, "silu")
    assert_close(gelu(x), wide * (1 + erf(wide / math.sqrt(2))) / 2, dtype, "gelu")
    assert_close(gelu_tanh(x), wide * (1 + tanh) / 2, dtype, "gelu_tanh")
    assert_close(relu(x), np.maximum(wide, 0), dtype, "relu")
    assert_close(relu_squared(x), np.maximum(wide, 0) ** 2, dtype, "relu_squared")
    learned = normal(seed + 1, dtype, 2, 1)
    beta, eps = torch.tensor([[0.25], [-1e-6]])
    above, below = np.log1p(np.exp(learned.double().numpy())) + np.array([[0.0], [0.25]])
    curve = np.where(wide > 0, above * wide**2, below * (np.exp(wide) - 1 - wide))
    assert_close(xielu(x, *learned, beta, eps), curve + wide / 4, dtype, "xielu")


@settings(max_examples=30, deadline=None)
@given(tokens=SIZES, features=SIZES, dtype=DTYPES, seed=SEEDS)
def test_gated_activations_take_the_gate_from_the_first_half(
    tokens: int, features: int, dtype: torch.dtype, seed: int
) -> None:
    x = normal(seed, dtype, tokens, 2 * features)
    gate, up = np.split(x.double().numpy(), 2, axis=-1)
    assert_close(silu_mul(x), gate / (1 + np.exp(-gate)) * up, dtype, "silu_mul")
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    assert_close(gelu_mul(x), 0.5 * gate * (1 + np.tanh(inner)) * up, dtype, "gelu_mul")
    exact = gate * (1 + np.vectorize(math.erf)(gate / math.sqrt(2))) / 2
    assert_close(gelu_exact_mul(x), exact * up, dtype, "gelu_exact_mul")


def rotated(
    x: np.ndarray, positions: list[int], angles: np.ndarray, interleaved: bool
) -> np.ndarray:
    """Each pair of features as one complex number, turned by its angle."""
    out, half = x.copy(), angles.shape[1]
    for token, position in enumerate(positions):
        for i in range(half):
            a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
            turned = (x[token, :, a] + 1j * x[token, :, b]) * np.exp(1j * angles[position, i])
            out[token, :, a], out[token, :, b] = turned.real, turned.imag
    return out


def angle_table(pairs: int) -> tuple[np.ndarray, Tensor]:
    angles = np.outer(np.arange(50), 10000.0 ** -(np.arange(pairs) / pairs))
    table = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return angles, torch.from_numpy(table.astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(
    positions=st.lists(st.integers(0, 49), min_size=1, max_size=9),
    heads=st.integers(1, 4),
    pairs=st.integers(1, 6),
    rest=st.integers(0, 5),
    interleaved=st.booleans(),
    dtype=DTYPES,
    seed=SEEDS,
)
def test_rope_turns_pairs_of_features_and_leaves_the_rest(
    positions: list[int],
    heads: int,
    pairs: int,
    rest: int,
    interleaved: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    dim = 2 * pairs + rest
    q = normal(seed, dtype, len(positions), 2 * heads, dim)
    k = normal(seed + 1, dtype, len(positions), heads, dim)
    angles, table = angle_table(pairs)
    expected = [rotated(x.double().numpy(), positions, angles, interleaved) for x in (q, k)]
    got = rope(q.clone(), k.clone(), torch.tensor(positions), table, interleaved=interleaved)
    for tensor, wanted in zip(got, expected, strict=True):
        assert_close(tensor, wanted, dtype, "rope")


@pytest.mark.parametrize("interleaved", [False, True])
def test_qk_norm_rope_normalises_each_head_before_it_turns(interleaved: bool) -> None:
    q, k = normal(0, torch.float32, 3, 4, 8), normal(1, torch.float32, 3, 2, 8)
    weights = normal(2, torch.float32, 2, 8)
    angles, table = angle_table(4)
    positions = [0, 7, 31]
    got = qk_norm_rope(
        q, k, *weights, 1e-6, torch.tensor(positions), table, interleaved=interleaved
    )
    for tensor, x, weight in zip(got, (q, k), weights, strict=True):
        heads = x.double().numpy().reshape(-1, 8)
        normed = normalised(heads, weight.double().numpy(), 1e-6).reshape(x.shape)
        expected = rotated(normed, positions, angles, interleaved)
        assert_close(tensor, expected, torch.float32, "qk_norm_rope")


def test_every_op_states_its_shapes_and_its_tolerance() -> None:
    for name, op in OPS.items():
        assert op.name == name
        assert "[" in (op.__doc__ or ""), f"{name} does not say what shapes it takes"
        assert {"float32", "float16", "bfloat16"} <= set(op.tolerance), name
