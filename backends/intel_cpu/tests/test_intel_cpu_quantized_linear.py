"""Products of weights of few bits against float64, with activations rounded as the kernel rounds."""

from __future__ import annotations

import pytest
import torch

from inarch.hal.quantized_linear import QuantizationScheme, QuantizedLinearSpec, QuantizedWeight
from inarch.hal.reference.quantized_linear import dequantize
from inarch_intel_cpu.native import load
from inarch_intel_cpu.quantized_linear import NativeQuantizedLinear

SCHEMES = [
    QuantizationScheme(8, None),
    QuantizationScheme(8, 32),
    QuantizationScheme(8, 64, zero_points=True),
    QuantizationScheme(4, 32),
    QuantizationScheme(4, 64, zero_points=True),
    QuantizationScheme(4, 128),
]
SHAPES = [(1, 1), (7, 33), (64, 256), (130, 300)]
ROWS = [1, 2, 3, 5, 7, 40]
FLOAT = torch.float32


def draw(scheme, outputs, inputs, *, extreme=False):
    """extreme: every value is at an end of the range, where sums of products are largest."""
    generator = torch.Generator().manual_seed(0)
    top, shape = (1 << scheme.bits) - 1, (outputs, scheme.groups(inputs))
    values = torch.randint(0, top + 1, (outputs, inputs), generator=generator, dtype=torch.uint8)
    if extreme:
        values = torch.full_like(values, top)
    zeros = torch.randint(0, top + 1, shape, generator=generator, dtype=torch.uint8)
    scales = torch.randn(shape, generator=generator) * 0.01
    return QuantizedWeight(values, scales, zeros if scheme.zero_points else None)


def rounded(x, group):
    """Activations as they are after the kernel's rounding, in float64."""
    rows, inputs = x.shape
    padded = torch.nn.functional.pad(x, (0, -inputs % group)).view(rows, -1, group)
    most = padded.abs().amax(-1, keepdim=True)
    inverse = torch.where(most > 0, 127 / most, 0.0)
    values = (padded * inverse).round().double() * (most.double() / 127)
    return values.view(rows, -1)[:, :inputs]


def apply(native, scheme, weight, x, bias=None):
    outputs, inputs = weight.values.shape
    spec = QuantizedLinearSpec(outputs, inputs, x.dtype, **vars(scheme), bias=bias is not None)
    layer = NativeQuantizedLinear(native)
    return layer.apply(x, layer.prepack(spec, weight, bias)), dequantize(spec, weight).double()


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_any_size_is_exact_but_for_the_rounding_of_activations(
    each_native, scheme, outputs, inputs
):
    weight = draw(scheme, outputs, inputs)
    bias = torch.randn(outputs, generator=torch.Generator().manual_seed(3))
    for rows in ROWS:
        x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows))
        out, whole = apply(each_native, scheme, weight, x, bias)
        near = rounded(x, scheme.group or 128)
        scale = near.abs() @ whole.abs().T + 1
        assert ((out - (near @ whole.T + bias)).abs() / scale).max() < 1e-5
        exact = x.double() @ whole.T + bias
        assert (out - exact).norm() <= 0.02 * (exact.norm() + 1)


def test_many_rows_are_each_multiplied_once(native):
    """More than share one walk over a weight."""
    scheme = QuantizationScheme(4, 32)
    weight = draw(scheme, 40, 64)
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    out, _ = apply(native, scheme, weight, x)
    rows = [apply(native, scheme, weight, x[r : r + 1])[0] for r in range(0, 500, 7)]
    torch.testing.assert_close(out[::7], torch.cat(rows))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_largest_values_overflow_nowhere(each_native, scheme):
    for sign in (1, -1):
        x = torch.full((3, 256), float(sign))
        out, whole = apply(each_native, scheme, draw(scheme, 40, 256, extreme=True), x)
        wanted = x.double() @ whole.T
        torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_variant_gives_the_same_bits(each_native, scheme):
    """Sums of a group are whole numbers, and scales meet them in the same order."""
    weight, other = draw(scheme, 70, 300), load("avx2")
    for rows in (1, 3, 4, 16, 17, 33):
        x = torch.randn(rows, 300, generator=torch.Generator().manual_seed(rows))
        assert apply(each_native, scheme, weight, x)[0].equal(apply(other, scheme, weight, x)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_activations_of_16_bits(each_native, dtype):
    scheme = QuantizationScheme(4, 32)
    x = torch.randn(5, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    out, _ = apply(each_native, scheme, draw(scheme, 40, 96), x)
    wide, _ = apply(each_native, scheme, draw(scheme, 40, 96), x.float())
    assert out.dtype == dtype
    assert out.equal(wide.to(dtype))


def test_a_group_of_activations_that_are_all_zero(each_native):
    scheme = QuantizationScheme(8, 32)
    x = torch.zeros(2, 64)
    x[1, 40] = 3.0
    out, whole = apply(each_native, scheme, draw(scheme, 8, 64), x)
    torch.testing.assert_close(out.double(), x.double() @ whole.T)


def test_an_outlier_spoils_its_own_group_alone(each_native):
    """Else the other activations would be rounded by the outlier's scale, to nothing."""
    scheme = QuantizationScheme(8, None)
    x = torch.full((1, 512), 0.01)
    x[0, 0] = 1000.0
    weight = draw(scheme, 8, 512)
    out, whole = apply(each_native, scheme, weight, x)
    rest = out.double() - 1000 * whole[:, 0]
    wanted = x[:, 128:].double() @ whole[:, 128:].T
    assert (rest - wanted).norm() < 0.2 * wanted.norm()


def test_scales_that_float16_holds_take_16_bits(each_native):
    scheme = QuantizationScheme(4, 32)
    weight, layer = draw(scheme, 8, 64), NativeQuantizedLinear(each_native)
    spec = QuantizedLinearSpec(8, 64, FLOAT, **vars(scheme))
    assert layer.prepack(spec, weight, None).scales.dtype == torch.float32
    short = QuantizedWeight(weight.values, weight.scales.half().float())
    assert layer.prepack(spec, short, None).scales.dtype == torch.float16
