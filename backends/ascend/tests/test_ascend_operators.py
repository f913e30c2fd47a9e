"""Each op that an operator of CANN computes gives what the core's reference gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from inarch.hal.device import Device
from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.ops import OPS
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear
from inarch_ascend.kernels import kernels, supports_norm, supports_rope

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def chosen(op: str) -> Callable[..., Any]:
    (kernel,) = (kernel for kernel in kernels() if kernel.op == op)
    return kernel.load()


def check(op: str, dtype: torch.dtype, *arguments: Any, **options: Any) -> None:
    """Run the kernel on the NPU and the reference on the CPU."""
    expected = OPS[op](*(x.clone() if isinstance(x, Tensor) else x for x in arguments), **options)
    there = [x.to("npu") if isinstance(x, Tensor) else x for x in arguments]
    found = chosen(op)(*there, **options)
    tolerance = OPS[op].tolerance[str(dtype).removeprefix("torch.")]
    for a, b in zip(_several(found), _several(expected), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a.cpu(), b, rtol=tolerance, atol=tolerance)


def _several(out: Any) -> Sequence[Tensor]:
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms(npu: Device, dtype: torch.dtype) -> None:
    x, residual, weight = (torch.randn(*shape).to(dtype) for shape in ((5, 64), (5, 64), (64,)))
    check("rms_norm", dtype, x, weight, 1e-5)
    check("add_rms_norm", dtype, x, residual, weight, 1e-5)
    check("rms_norm", dtype, torch.randn(5, 3, 64).to(dtype), weight, 1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gate_and_up(npu: Device, dtype: torch.dtype) -> None:
    check("silu_mul", dtype, torch.randn(7, 96).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotated", [64, 32])
def test_rotation(npu: Device, dtype: torch.dtype, interleaved: bool, rotated: int) -> None:
    q, k = torch.randn(9, 4, 64).to(dtype), torch.randn(9, 2, 64).to(dtype)
    angles = torch.outer(torch.arange(100.0), 10000.0 ** -(torch.arange(rotated // 2) / rotated))
    table = torch.cat((angles.cos(), angles.sin()), -1)
    positions = torch.tensor([0, 1, 2, 50, 99, 7, 8, 9, 3])
    check("rope", dtype, q, k, positions, table, interleaved=interleaved)


def test_the_table_of_another_model_is_another_table(npu: Device) -> None:
    q, k, positions = torch.randn(3, 4, 64), torch.randn(3, 2, 64), torch.arange(3)
    for seed in range(3):
        torch.manual_seed(seed)
        check("rope", torch.float32, q, k, positions, torch.rand(10, 64))


@pytest.mark.parametrize("bias", [False, True])
def test_experts_without_rows_and_with_many(npu: Device, bias: bool) -> None:
    spec = GroupedLinearSpec(4, 24, 16, torch.bfloat16, bias)
    weight = torch.randn(4, 24, 16).bfloat16()
    biases = torch.randn(4, 24).bfloat16() if bias else None
    x, ends = torch.randn(12, 16).bfloat16(), torch.tensor([5, 5, 6, 12], dtype=torch.int32)
    plain = ReferenceGroupedLinear()
    expected = plain.apply(x, plain.prepack(spec, weight, biases), RowGroups(ends))
    kernel = chosen("grouped_linear")()
    packed = kernel.prepack(spec, weight.to("npu"), None if biases is None else biases.to("npu"))
    found = kernel.apply(x.to("npu"), packed, RowGroups(ends.to("npu")))
    torch.testing.assert_close(found.cpu(), expected, rtol=0.02, atol=0.05)


def test_what_an_operator_does_not_take_is_refused_with_the_reason() -> None:
    wide = supports_norm({"dtype": torch.bfloat16, "weight_dtype": torch.float32})
    assert "must be torch.bfloat16" in wide.why
    heads = {"dtype": torch.bfloat16, "q_heads": 8, "kv_heads": 2, "rotary_dim": 64}
    assert supports_rope(heads)
    assert "1024 rotated features" in supports_rope(heads | {"rotary_dim": 1024}).why
    assert not supports_rope(heads | {"dtype": torch.float64})
