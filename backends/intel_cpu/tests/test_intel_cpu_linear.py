"""Products of packed weights against float64: every dtype, odd sizes, any number of threads."""

from __future__ import annotations

import pytest
import torch

from inarch.hal.linear import LinearSpec
from inarch_intel_cpu.linear import NativeLinear

UNIT = {torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 6e-4}
# outputs, inputs: less than a panel, exactly panels, one more; odd inputs
SHAPES = [(1, 1), (7, 33), (32, 64), (33, 65), (130, 257)]
ROWS = [1, 2, 3, 4, 5, 8, 13, 17, 40]  # a few by vectors; with tiles of 16 rows also more than one


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def check(native, outputs, inputs, rows, dtype, stored=None, bias=True):
    """stored: the dtype that the weight's values come from."""
    weight = normal(outputs, inputs).to(stored or dtype).to(dtype)
    offsets = normal(outputs, seed=1).to(dtype) if bias else None
    layer = NativeLinear(native)
    spec = LinearSpec(outputs, inputs, dtype, bias)
    packed = layer.prepack(spec, weight, offsets)
    x = normal(rows, inputs, seed=2).to(dtype)
    wanted = x.double() @ weight.double().T + (0 if offsets is None else offsets.double())
    out = layer.apply(x, packed)
    assert out.dtype == dtype
    scale = x.double().abs() @ weight.double().abs().T + 1
    assert ((out.double() - wanted).abs() / scale).max() < UNIT[dtype]
    return packed


@pytest.mark.parametrize("dtype", list(UNIT), ids=str)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_any_size_in_every_dtype(each_native, outputs, inputs, dtype):
    for rows in ROWS:
        check(each_native, outputs, inputs, rows, dtype, bias=rows % 2 == 0)


@pytest.mark.parametrize("dtype", list(UNIT), ids=str)
def test_many_rows_are_each_multiplied_once(native, dtype):
    """More than share one walk over a weight."""
    check(native, 40, 24, 500, dtype)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16], ids=str)
def test_float32_weights_of_a_16_bit_checkpoint_take_16_bits_and_lose_none(each_native, stored):
    for rows in ROWS:
        packed = check(each_native, 70, 45, rows, torch.float32, stored)
    assert packed.weight.dtype == stored


def test_float32_weights_that_need_32_bits_keep_them(each_native):
    weight = torch.ones(8, 8)
    weight[5, 5] += 2**-20
    packed = NativeLinear(each_native).prepack(LinearSpec(8, 8, torch.float32), weight, None)
    assert packed.weight.dtype == torch.float32


def test_bfloat16_is_not_rounded_before_it_is_multiplied(each_native):
    """A sum of 512 that float32 holds, and bfloat16 would not if it were kept in it on the way."""
    weight, x = torch.ones(40, 512).bfloat16(), torch.ones(33, 512).bfloat16()
    weight[:, 1::2] = -1
    weight[7, 300] = 1 + 2**-7
    x[:, 300] = 1 + 2**-7
    out = NativeLinear(each_native)
    packed = out.prepack(LinearSpec(40, 512, torch.bfloat16), weight, None)
    for rows in (1, 6, 33):
        found = out.apply(x[:rows], packed)
        assert found[:, 6].eq(2**-7).all()
        assert found[:, 7].eq(torch.tensor(2**-6 + 2**-14).bfloat16()).all()


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_any_number_of_threads_gives_the_same_bits(native, threads):
    layer, x = NativeLinear(native), normal(90, 200, seed=2)
    packed = layer.prepack(LinearSpec(300, 200, torch.float32), normal(300, 200), None)
    native.set_threads(1)
    alone = layer.apply(x, packed)
    native.set_threads(threads)
    for _ in range(20):
        assert layer.apply(x, packed).equal(alone)


def test_a_row_and_a_slice_that_is_not_contiguous_are_what_they_look_like(native):
    layer, wide = NativeLinear(native), normal(6, 80, seed=2)
    packed = layer.prepack(LinearSpec(16, 40, torch.float32), normal(16, 40), None)
    assert layer.apply(wide[:, 20:60], packed).equal(
        layer.apply(wide[:, 20:60].contiguous(), packed)
    )
    assert layer.apply(wide[:0, :40], packed).shape == (0, 16)
