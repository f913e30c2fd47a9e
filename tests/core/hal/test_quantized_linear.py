"""Quantized weights: what quantizing costs, and the reference product against float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inarch.hal.quantized_linear import QuantizationScheme, QuantizedLinearSpec, QuantizedWeight
from inarch.hal.reference.quantized_linear import ReferenceQuantizedLinear
from inarch.models.quantize import quantize

FLOAT = torch.float32


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(weight: QuantizedWeight, bits: int, group: int) -> Tensor:
    """In float64, element by element as the definition says."""
    found = torch.empty(weight.values.shape, dtype=torch.float64)
    for n, row in enumerate(weight.values.tolist()):
        for k, value in enumerate(row):
            zero = 1 << (bits - 1) if weight.zeros is None else int(weight.zeros[n, k // group])
            found[n, k] = (value - zero) * weight.scales[n, k // group].double()
    return found


@settings(deadline=None, max_examples=40)
@given(
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([None, 3, 32]),
    outputs=st.integers(1, 4),
    inputs=st.integers(1, 70),
    exponent=st.integers(-3, 3),
)
def test_a_weight_moves_by_half_a_step_at_most(
    bits: int, group: int | None, outputs: int, inputs: int, exponent: int
) -> None:
    weight = normal(outputs, inputs) * 10.0**exponent
    found = quantize(weight, QuantizationScheme(bits, group))
    moved = (whole(found, bits, group or inputs) - weight.double()).abs()
    half_a_step = found.scales.abs().double().repeat_interleave(group or inputs, 1)[:, :inputs] / 2
    # With 4 bits the end of the range without a value of its own is one step further in.
    ends = half_a_step * 2.001 if bits == 4 else half_a_step * 1.2
    tiny = 127 * 2**-25  # by which a scale below float16's normal numbers may be too small
    assert (moved <= ends + tiny).all()
    inside = moved <= half_a_step * 1.001 + 1e-7
    assert inside.double().mean() > 0.5
    assert found.scales.equal(found.scales.half().float())


def test_4_bits_use_all_sixteen_values_and_8_bits_are_even_about_zero() -> None:
    weight = normal(64, 256)
    four, eight = (quantize(weight, QuantizationScheme(bits, 32)) for bits in (4, 8))
    assert set(four.values.flatten().tolist()) == set(range(16))
    assert int(eight.values.min()) == 1
    assert int(eight.values.max()) == 255
    assert (whole(four, 4, 32) - weight).norm() / weight.norm() < 0.1
    assert (whole(eight, 8, 32) - weight).norm() / weight.norm() < 0.007


def test_groups_of_zeros_and_numbers_that_are_none_stay_finite() -> None:
    weight = torch.zeros(2, 64)
    weight[1, 3] = torch.inf
    for bits in (4, 8):
        found = whole(quantize(weight, QuantizationScheme(bits, 32)), bits, 32)
        assert found.isfinite().all()
        assert not found[0].any()


@pytest.mark.parametrize("inputs", [64, 37])
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize(("bits", "group"), [(8, None), (8, 16), (4, 16)])
def test_the_reference_multiplies_by_what_the_values_stand_for(
    bits: int, group: int | None, zero_points: bool, inputs: int
) -> None:
    scheme, generator = (
        QuantizationScheme(bits, group, zero_points),
        torch.Generator().manual_seed(1),
    )
    shape = (9, scheme.groups(inputs))
    weight = QuantizedWeight(
        torch.randint(0, 1 << bits, (9, inputs), generator=generator, dtype=torch.uint8),
        normal(*shape),
        torch.randint(0, 1 << bits, shape, generator=generator, dtype=torch.uint8)
        if zero_points
        else None,
    )
    spec = QuantizedLinearSpec(9, inputs, FLOAT, bits, group, zero_points, bias=True)
    x, bias, layer = normal(5, inputs, seed=2), normal(9, seed=3), ReferenceQuantizedLinear()
    packed = layer.prepack(spec, weight, bias)
    wanted = x.double() @ whole(weight, bits, group or inputs).T + bias
    torch.testing.assert_close(layer.apply(x, packed).double(), wanted, rtol=1e-5, atol=1e-4)
    if bits == 4:
        assert packed.values.shape == (9, -(-inputs // 2))


def test_a_scheme_tells_its_bytes_and_itself_in_words() -> None:
    scheme = QuantizationScheme(4, 32)
    assert scheme.weight_bytes(10, 64) == 10 * (32 + 2 * 2)
    assert QuantizationScheme(8, None, zero_points=True).weight_bytes(10, 64) == 10 * (64 + 3)
    assert str(scheme) == "int4, a scale for each 32 inputs"
