"""Each op that an operator of CANN computes gives what the core's reference gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.experts import ExpertsSpec, ExpertWeights
from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.ops import OPS
from inarch.hal.quantized_linear import QuantizedLinearSpec, QuantizedWeight
from inarch.hal.reference.experts import ComposedExperts
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear
from inarch.hal.reference.quantized_linear import ReferenceQuantizedLinear
from inarch_ascend.kernels import (
    kernels,
    supports_experts,
    supports_norm,
    supports_rope,
    supports_scaled_weight,
)

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


def test_experts_as_a_whole(npu: Device) -> None:
    """Some experts get many tokens, one gets none."""
    spec = ExpertsSpec(5, 2, 16, 24, torch.bfloat16)
    weights = [torch.randn(5, 48, 16).bfloat16() / 4, torch.randn(5, 16, 24).bfloat16() / 4]
    x, shares = torch.randn(9, 16).bfloat16(), torch.rand(9, 2)
    experts = torch.tensor([[0, 4]] * 4 + [[1, 0]] * 4 + [[4, 2]])
    grouped = ReferenceGroupedLinear()
    composed = ComposedExperts(grouped, grouped, OPS["silu_mul"])
    expected = composed.apply(x, experts, shares, composed.prepack(spec, ExpertWeights(*weights)))
    kernel = chosen("experts")()
    packed = kernel.prepack(spec, ExpertWeights(*(weight.to("npu") for weight in weights)))
    found = kernel.apply(*(part.to("npu") for part in (x, experts, shares)), packed)
    torch.testing.assert_close(found.cpu(), expected, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": torch.float16},
        {"activation": "gelu_tanh"},
        {"bias": True},
        {"scale_input": True},
        {"experts": 1},
    ],
)
def test_other_experts_are_made_of_parts(change: dict[str, object]) -> None:
    facts = vars(ExpertsSpec(5, 2, 16, 24, torch.bfloat16))
    assert supports_experts(facts)
    assert not supports_experts(facts | change)


SCHEMES = {
    "int8": QuantizedLinearSpec(24, 64, torch.bfloat16, 8, 32, False),
    "int4": QuantizedLinearSpec(24, 80, torch.float16, 4, 32, False),
    "int4 zeros": QuantizedLinearSpec(24, 128, torch.bfloat16, 4, 64, True, bias=True),
    "int8 zeros": QuantizedLinearSpec(20, 64, torch.float16, 8, 32, True, bias=True),
    "one scale": QuantizedLinearSpec(24, 64, torch.bfloat16, 8, None, False, bias=True),
    "one group": QuantizedLinearSpec(24, 64, torch.float16, 8, 64, False),
    "int4 of an output": QuantizedLinearSpec(24, 64, torch.bfloat16, 4, None, True),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_quantized_weights(npu: Device, name: str) -> None:
    spec = SCHEMES[name]
    groups = spec.scheme.groups(spec.inputs)
    values = torch.randint(0, 1 << spec.bits, (spec.outputs, spec.inputs), dtype=torch.uint8)
    scales = torch.rand(spec.outputs, groups) / (1 << spec.bits)
    zeros = torch.randint(0, 1 << spec.bits, (spec.outputs, groups), dtype=torch.uint8)
    bias = torch.randn(spec.outputs).to(spec.dtype) if spec.bias else None
    x = torch.randn(5, spec.inputs).to(spec.dtype)
    found = []
    for kernel, place in ((ReferenceQuantizedLinear(), "cpu"), (quantized(spec), "npu")):
        parts = [values, scales, zeros if spec.zero_points else None]
        weight = QuantizedWeight(*(None if part is None else part.to(place) for part in parts))
        packed = kernel.prepack(spec, weight, None if bias is None else bias.to(place))
        found.append(kernel.apply(x.to(place), packed).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=0.03, atol=0.08)


def quantized(spec: QuantizedLinearSpec) -> Any:
    """The kernel that the dispatcher takes."""
    dispatcher = Dispatcher(kernels())
    return dispatcher.select("quantized_linear", ReferenceQuantizedLinear, **vars(spec))()


def test_which_quantized_weights_are_multiplied_as_integers() -> None:
    names = {name: type(quantized(spec)).__name__ for name, spec in SCHEMES.items()}
    integers = {name for name, kernel in names.items() if kernel == "QuantMatmul"}
    assert integers == {"one scale", "one group"}
    assert set(names.values()) == {"QuantMatmul", "WeightQuantMatmul"}
    wide = dataclasses.replace(SCHEMES["int4"], outputs=20)
    assert "no multiple of 8" in supports_scaled_weight(vars(wide)).why
    odd = dataclasses.replace(SCHEMES["int4"], group=48)
    assert "multiple of 32 inputs" in supports_scaled_weight(vars(odd)).why


def test_what_an_operator_does_not_take_is_refused_with_the_reason() -> None:
    wide = supports_norm({"dtype": torch.bfloat16, "weight_dtype": torch.float32})
    assert "must be torch.bfloat16" in wide.why
    heads = {"dtype": torch.bfloat16, "q_heads": 8, "kv_heads": 2, "rotary_dim": 64}
    assert supports_rope(heads)
    assert "1024 rotated features" in supports_rope(heads | {"rotary_dim": 1024}).why
    assert not supports_rope(heads | {"dtype": torch.float64})
