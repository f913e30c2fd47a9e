"""The grouped linear kernel against one product for each expert, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, not with this one")

from inarch.hal.dispatch import Dispatcher
from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear
from inarch_triton.grouped_linear import TritonGroupedLinear, tile_rows
from inarch_triton.kernels import kernels

GPU = torch.accelerator.is_available()
DTYPES = [torch.float16, *([torch.bfloat16] if GPU else [])]  # the interpreter has no bfloat16 dot


def draw(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * shape[-1] ** -0.5).to(dtype)


def ends(device, counts: list[int]) -> RowGroups:
    found = torch.tensor(counts).cumsum(0).to(torch.int32)
    return RowGroups(found.to(device.torch_device))


def expected(x: Tensor, weight: Tensor, bias: Tensor | None, counts: list[int]) -> Tensor:
    parts = []
    for expert, rows in enumerate(x.double().cpu().split(counts)):
        product = rows @ weight[expert].double().cpu().T
        parts.append(product if bias is None else product + bias[expert].double().cpu())
    return torch.cat(parts)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("counts", "outputs", "inputs"),
    [
        ([1], 16, 32),
        ([0, 3, 0, 17, 16], 40, 64),  # experts without rows, one tile, and one more row
        ([5, 0, 0], 130, 48),  # all for the first; two tiles of outputs, half a block of inputs
        ([0, 0, 70], 33, 70),
        ([40, 33, 60, 1, 1], 64, 128),
    ],
)
def test_every_row_meets_the_weight_of_its_expert(
    counts: list[int], outputs: int, inputs: int, bias: bool, dtype: torch.dtype, device
) -> None:
    where = device.torch_device
    weight = draw(len(counts), outputs, inputs, dtype=dtype, seed=1).to(where)
    offsets = draw(len(counts), outputs, dtype=dtype, seed=2).to(where) if bias else None
    x = draw(sum(counts), inputs, dtype=dtype, seed=3).to(where) * inputs**0.5
    linear = TritonGroupedLinear(device.info.arch)
    spec = GroupedLinearSpec(len(counts), outputs, inputs, dtype, bias)
    found = linear.apply(x, linear.prepack(spec, weight, offsets), ends(device, counts))
    wanted = expected(x, weight, offsets, counts)
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double().cpu(), wanted, rtol=unit, atol=unit / 2)


def test_no_rows_at_all_are_no_launch(device) -> None:
    where = device.torch_device
    linear = TritonGroupedLinear(device.info.arch)
    weight = torch.zeros(2, 16, 32, dtype=torch.float16, device=where)
    packed = linear.prepack(GroupedLinearSpec(2, 16, 32, torch.float16), weight, None)
    x = torch.zeros(0, 32, dtype=torch.float16, device=where)
    assert linear.apply(x, packed, ends(device, [0, 0])).shape == (0, 16)


def test_tiles_are_as_high_as_an_expert_has_rows_on_the_average() -> None:
    assert [tile_rows(rows, 128) for rows in (8, 2048, 2176, 8192, 99999)] == [16, 16, 32, 64, 128]


@pytest.mark.parametrize(
    ("dtype", "experts", "kernel"),
    [
        (torch.bfloat16, 128, "triton"),
        (torch.float32, 128, "reference"),
        (torch.bfloat16, 1025, "reference"),
    ],
)
def test_what_it_cannot_do_is_left_to_the_reference(
    dtype: torch.dtype, experts: int, kernel: str
) -> None:
    dispatcher = Dispatcher(kernels("sm_90a"))
    facts = vars(GroupedLinearSpec(experts, 16, 32, dtype))
    made = dispatcher.select("grouped_linear", ReferenceGroupedLinear, **facts)()
    assert dispatcher.choices[0].kernel == kernel
    assert made.capturable is (kernel == "triton")


@pytest.mark.skipif(not GPU, reason="needs a GPU to capture on")
def test_a_captured_product_serves_other_groups_at_its_replay(device) -> None:
    where = device.torch_device
    linear = TritonGroupedLinear(device.info.arch)
    weight = draw(8, 256, 128, dtype=torch.bfloat16, seed=1).to(where)
    packed = linear.prepack(GroupedLinearSpec(8, 256, 128, torch.bfloat16), weight, None)
    x = draw(40, 128, dtype=torch.bfloat16, seed=2).to(where)
    groups = ends(device, [5] * 8)
    linear.apply(x, packed, groups)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = linear.apply(x, packed, groups)
    for counts in ([40, *[0] * 7], [0, 0, 13, 0, 20, 7, 0, 0]):
        groups.ends.copy_(ends(device, counts).ends)
        graph.replay()
        wanted = expected(x, weight, None, counts)
        torch.testing.assert_close(found.double().cpu(), wanted, rtol=1e-2, atol=1e-2)
