"""The linear kernel against products in float64, and what a captured step needs of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, not with this one")

from inarch.hal.linear import LinearSpec
from inarch_triton.linear import PackedLinear, TritonLinear, multiply
from inarch_triton.linear_tiles import LinearTile, linear_tiles

GPU = torch.accelerator.is_available()
DTYPES = [torch.float16, *([torch.bfloat16] if GPU else [])]  # the interpreter has no bfloat16 dot
SMALL = LinearTile(rows=32, depth=32, tokens=16, warps=4, stages=2)
LLAMA = [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)]
needs_gpu = pytest.mark.skipif(not GPU, reason="real sizes need a GPU")


def draw(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * shape[-1] ** -0.5).to(dtype)


def packed(device, outputs: int, inputs: int, dtype: torch.dtype, *, bias: bool) -> PackedLinear:
    """Counters for any tile; no tile of its own."""
    weight = draw(outputs, inputs, dtype=dtype, seed=1).to(device.torch_device)
    offsets = draw(outputs, dtype=dtype, seed=2).to(device.torch_device) if bias else None
    counters = torch.zeros(outputs, dtype=torch.int32, device=device.torch_device)
    return PackedLinear(weight, offsets, (), counters)


def expected(x: Tensor, layer: PackedLinear) -> Tensor:
    product = x.double().cpu() @ layer.weight.double().cpu().T
    return product if layer.bias is None else product + layer.bias.double().cpu()


def assert_close(got: Tensor, wanted: Tensor) -> None:
    unit = torch.finfo(got.dtype).eps
    torch.testing.assert_close(got.double().cpu(), wanted, rtol=unit, atol=unit / 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("outputs", "inputs", "changes"),
    [
        (64, 64, {}),
        (100, 96, {}),  # the last of 4 tiles is not full
        (33, 70, {}),
        (64, 128, {"splits": 2}),
        (70, 104, {"splits": 4}),  # of 4 blocks the last is not full
        (40, 160, {"splits": 4, "rows": 16}),  # of 5 blocks, so the last share is empty
    ],
)
def test_products_of_any_size_however_they_are_cut(
    outputs: int, inputs: int, changes: dict[str, int], dtype: torch.dtype, device
) -> None:
    tile = replace(SMALL, **changes)
    for tokens, bias in ((1, False), (7, True), (16, True)):
        layer = packed(device, outputs, inputs, dtype, bias=bias)
        x = draw(tokens, 3 * inputs, dtype=dtype, seed=3).to(device.torch_device)
        x = x[:, inputs : 2 * inputs]  # a view: its rows are further apart than they are long
        assert_close(multiply(x, layer, tile, pdl=False), expected(x, layer))
        assert layer.counters is not None
        assert not layer.counters.any(), "the next launch starts from zero"


@pytest.mark.parametrize("splits", [1, 2])
def test_a_row_depends_on_nothing_but_itself(splits: int, device) -> None:
    tile = replace(SMALL, splits=splits)
    layer = packed(device, 64, 128, torch.float16, bias=False)
    x = draw(16, 128, dtype=torch.float16, seed=4).to(device.torch_device)
    together = multiply(x, layer, tile, pdl=False)
    for alone in (0, 5, 15):
        assert torch.equal(
            multiply(x[alone : alone + 1], layer, tile, pdl=False)[0], together[alone]
        )


def test_the_layer_takes_the_kernel_for_few_tokens_and_torch_for_many(device) -> None:
    for outputs, inputs in (
        (96, 64),
        (96, 50),
    ):  # rows of 50 numbers cannot be loaded as the kernel does
        spec = LinearSpec(outputs, inputs, torch.float16, bias=True)
        weight = draw(outputs, inputs, dtype=spec.dtype, seed=5).to(device.torch_device)
        bias = draw(outputs, dtype=spec.dtype, seed=6).to(device.torch_device)
        linear = TritonLinear("sm_80")
        layer = linear.prepack(spec, weight, bias)
        assert layer.weight.data_ptr() == weight.data_ptr(), "no second copy"
        for tokens in (0, 1, 16, 17):
            x = draw(tokens, inputs, dtype=spec.dtype, seed=7).to(device.torch_device)
            assert_close(linear.apply(x, layer), expected(x, layer))


@needs_gpu
@pytest.mark.parametrize(("outputs", "inputs"), LLAMA)
def test_real_sizes_are_exact_and_the_same_each_time(outputs: int, inputs: int, device) -> None:
    linear = TritonLinear(device.info.arch)
    spec = LinearSpec(outputs, inputs, torch.bfloat16)
    weight = draw(outputs, inputs, dtype=spec.dtype, seed=8).to(device.torch_device)
    layer = linear.prepack(spec, weight, None)
    assert layer.tiles
    for tokens in (1, 8, 16, 17, 64, 100):
        x = draw(tokens, inputs, dtype=spec.dtype, seed=9).to(device.torch_device) * inputs**0.5
        first = linear.apply(x, layer)
        wide = (x.float() @ weight.float().T).double()
        torch.testing.assert_close(first.double(), wide, rtol=1e-2, atol=1e-2)
        assert all(torch.equal(first, linear.apply(x, layer)) for _ in range(20))
        assert layer.counters is None or not layer.counters.any()


@needs_gpu
@pytest.mark.parametrize(("outputs", "inputs"), LLAMA)
def test_a_row_is_the_same_beside_any_number_of_others(outputs: int, inputs: int, device) -> None:
    """Its sums are made of the same blocks in the same order for every tile of the table."""
    linear = TritonLinear(device.info.arch)
    weight = draw(outputs, inputs, dtype=torch.bfloat16, seed=11).to(device.torch_device)
    layer = linear.prepack(LinearSpec(outputs, inputs, weight.dtype), weight, None)
    x = draw(layer.tiles[-1].tokens, inputs, dtype=weight.dtype, seed=12).to(device.torch_device)
    together = linear.apply(x, layer)
    for tokens in (1, 9, 16, 17, 32, 33):
        if tokens <= len(x):
            assert torch.equal(linear.apply(x[:tokens], layer), together[:tokens]), tokens


@needs_gpu
def test_a_captured_chain_gives_the_same_at_every_replay(device) -> None:
    """Launches that overlap with the end of those before them must not read what is not there yet."""
    linear = TritonLinear(device.info.arch)
    layers = []
    for seed, (outputs, inputs) in enumerate([(14336, 4096), (4096, 14336)] * 4):
        weight = draw(outputs, inputs, dtype=torch.bfloat16, seed=seed).to(device.torch_device)
        layers.append(linear.prepack(LinearSpec(outputs, inputs, weight.dtype), weight, None))

    def chain(x: Tensor) -> Tensor:
        for layer in layers:
            x = linear.apply(x, layer)
        return x

    x = draw(8, 4096, dtype=torch.bfloat16, seed=10).to(device.torch_device) * 64
    wanted = chain(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = chain(x)
    for scale in (1, -1, 1):
        x.mul_(scale)
        graph.replay()
        wanted.mul_(scale)
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_90a", "sm_100", "gfx942"])
def test_every_tile_has_work_for_its_programs(arch: str) -> None:
    for outputs, inputs in [*LLAMA, (128256, 4096), (768, 4096), (64, 16)]:
        sizes = linear_tiles(arch, 132, outputs, inputs)
        assert [tile.tokens for tile in sizes] == sorted(tile.tokens for tile in sizes)
        for tile in sizes:
            blocks = -(-inputs // tile.depth)
            assert tile.splits <= blocks
    assert linear_tiles(arch, 132, 4096, 4100) == ()
