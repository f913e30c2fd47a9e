"""Norms, activations and rotary positions against the reference in float64."""

from __future__ import annotations

import functools

import pytest
import torch

from inarch.hal.ops import OPS
from inarch_intel_cpu.attending import attending_kernels

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
DTYPES = list(TOLERANCE)
SIZES = [(1, 64), (3, 7), (5, 33), (300, 130), (2, 5000)]


@functools.cache
def table(native):
    return {kernel.op: kernel.load() for kernel in attending_kernels(native)}


def normal(*shape, dtype, seed=0, scale=1.0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def check(found, wanted, dtype):
    for each, other in zip(found, wanted, strict=True):
        assert each.dtype == dtype
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(each.double(), other, atol=tolerance, rtol=tolerance)


def exactly(op, *arguments, **options):
    """What the reference gives in float64, as a tuple: norms compute in float32, so do it by hand."""
    wide = [
        a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
        for a in arguments
    ]
    found = OPS[op](*wide, **options)
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("op", ["rms_norm", "layer_norm"])
def test_norms_are_as_defined_alone_and_after_a_sum(native, op, wide, dtype):
    for rows, size in SIZES:
        x, residual = (normal(rows, size, dtype=dtype, seed=n, scale=3) + 1 for n in range(2))
        kind = torch.float32 if wide else dtype
        weight, bias = (normal(size, dtype=kind, seed=n) for n in (2, 3))
        more = (weight, 1e-5) if op == "rms_norm" else (weight, bias, 1e-5)
        check([table(native)[op](x, *more)], exactly(op, x, *more), dtype)
        total = residual + x
        wanted = (*exactly(op, total, *more), total.double())
        check(table(native)[f"add_{op}"](x.clone(), residual.clone(), *more), wanted, dtype)


def test_a_layer_norm_may_have_no_bias_and_rows_any_shape(native):
    x = normal(3, 5, 24, dtype=torch.float32)
    weight = normal(24, dtype=torch.float32)
    found = table(native)["layer_norm"](x[:, ::2], weight, None, 1e-5)
    check([found], exactly("layer_norm", x[:, ::2], weight, None, 1e-5), torch.float32)


@pytest.mark.parametrize("wide", ["weight", "bias"])
def test_a_weight_and_a_bias_may_be_of_two_kinds(native, wide):
    x, weight, bias = (normal(4, 40, dtype=torch.bfloat16, seed=n) for n in range(3))
    weight, bias = weight[0], bias[0]
    if wide == "weight":
        weight = weight.float()
    else:
        bias = bias.float()
    found = table(native)["layer_norm"](x, weight, bias, 1e-5)
    check([found], exactly("layer_norm", x, weight, bias, 1e-5), torch.bfloat16)


@pytest.mark.parametrize("op", ["rms_norm", "layer_norm"])
def test_a_row_next_to_nothing_is_normed_with_epsilon(native, op):
    x, weight = normal(2, 40, dtype=torch.float32, scale=1e-3), torch.ones(40)
    more = (weight, 1e-5) if op == "rms_norm" else (weight, None, 1e-5)
    x[1] = 0
    check([table(native)[op](x, *more)], exactly(op, x, *more), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "op",
    [
        *("silu_mul", "gelu_mul", "gelu_exact_mul"),
        *("silu", "gelu", "gelu_tanh", "relu", "relu_squared"),
    ],
)
def test_activations_are_as_defined(native, op, dtype):
    for rows, size in SIZES:
        x = normal(rows, size * 2, dtype=dtype, scale=4)
        check([table(native)[op](x)], exactly(op, x), dtype)


def test_activations_hold_at_the_ends_of_the_range(native):
    x = torch.tensor([[-1e30, -200.0, -88.0, -20.0, 0.0, 20.0, 88.0, 200.0, 1e30]])
    for op in ("silu", "gelu", "gelu_tanh", "relu"):
        torch.testing.assert_close(table(native)[op](x), OPS[op](x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_clamped_swiglu_is_as_defined(native, dtype):
    x = normal(5, 66, dtype=dtype, scale=5)
    found = table(native)["clamped_swiglu"](x, alpha=1.702, limit=7.0)
    check([found], exactly("clamped_swiglu", x, alpha=1.702, limit=7.0), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("dim", "rotary"), [(64, 64), (80, 32), (18, 6)])
def test_heads_are_normed_and_rotated_where_they_lie(native, dtype, interleaved, dim, rotary):
    qkv = normal(9, 8, dim + 8, dtype=dtype)[..., :dim]  # heads may lie apart
    cos_sin, positions = normal(50, rotary, dtype=torch.float32), torch.arange(9) * 5
    q, k, _ = qkv.split([5, 2, 1], dim=1)
    weights = (normal(dim, dtype=dtype, seed=1), normal(dim, dtype=dtype, seed=2), 1e-6)
    for op, more in (("rope", ()), ("qk_norm_rope", weights)):
        wanted = exactly(op, q, k, *more, positions, cos_sin, interleaved=interleaved)
        own = normal(9, 8, dim + 8, dtype=dtype)[..., :dim]
        own_q, own_k, own_v = own.split([5, 2, 1], dim=1)
        found = table(native)[op](own_q, own_k, *more, positions, cos_sin, interleaved=interleaved)
        check(found, wanted, dtype)
        assert torch.equal(own_v, qkv[:, 7:])


def test_an_exponential_is_right_to_a_unit_and_a_half_in_the_last_place(native):
    # By way of sigmoid's denominator: 1 / (1 + exp(-x)) for large -x is exp(x).
    x = torch.linspace(-87.3, -17, 500_000)
    found = table(native)["silu"](x[None])[0].double() / x.double()
    wanted = torch.exp(x.double())
    assert ((found - wanted) / wanted).abs().max() < 4 * 2.0**-24
