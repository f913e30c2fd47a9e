"""What is decided before any GPU is touched: buckets of decodes, what may be captured, kernels."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from inarch.errors import UnsupportedError
from inarch.hal.dispatch import Dispatcher
from inarch.hal.executor import StepInputs, StepShape
from inarch.hal.ops import FACETS, OPS
from inarch.hal.reference.linear import ReferenceLinear
from inarch_nvidia.executor import SIZES, addresses_of, bucket
from inarch_nvidia.kernels import kernels


@dataclass(frozen=True)
class Plan:
    addresses: tuple[int, ...]


def inputs(*plans: object) -> StepInputs:
    return StepInputs(torch.zeros(1), torch.zeros(1), torch.zeros(1), plans)


@pytest.mark.parametrize("seqs", [1, 3, 8, 9, 64, 65, 200, 511, 512])
def test_decodes_are_padded_to_the_next_bucket_and_little_is_padding(seqs):
    padded = bucket(StepShape(seqs, seqs, 1))
    assert padded.seqs == padded.tokens >= seqs
    assert padded.seqs == min(size for size in SIZES if size >= seqs)
    assert bucket(padded) == padded
    if seqs >= 64:
        assert padded.seqs <= 1.25 * seqs


@pytest.mark.parametrize(
    "shape", [StepShape(100, 3, 98), StepShape(17, 16, 2), StepShape(513, 513, 1)]
)
def test_what_is_not_captured_is_not_padded(shape):
    assert bucket(shape) == shape
    assert addresses_of(shape, inputs(Plan((1, 2)))) is None


def test_a_step_is_captured_only_if_every_plan_keeps_its_addresses():
    shape = StepShape(8, 8, 1)
    assert addresses_of(shape, inputs(Plan((1, 2)), Plan((3,)))) == ((1, 2), (3,))
    assert addresses_of(shape, inputs(Plan((1, 2)), object())) is None


def test_every_op_and_facet_has_a_kernel_and_every_kernel_an_op():
    composites = {name for name, op in OPS.items() if op.parts}
    given = {kernel.op for kernel in kernels("sm_90")}
    assert set(OPS) - composites <= given <= set(OPS) | set(FACETS)
    assert set(FACETS) <= given


@pytest.mark.parametrize(
    ("dtype", "kernel"),
    [(torch.bfloat16, "triton"), (torch.float16, "triton"), (torch.float32, "cublas")],
)
def test_linear_layers_are_our_kernel_or_cublas_products_in_every_offered_dtype(dtype, kernel):
    dispatcher = Dispatcher(kernels("sm_90"), strict=True)
    dispatcher.select("linear", object, outputs=8, inputs=8, dtype=dtype, bias=True)
    assert dispatcher.choices[0].kernel == kernel


def test_cublas_can_be_asked_for():
    dispatcher = Dispatcher(kernels("sm_90"), overrides={"linear": "cublas"}, strict=True)
    facts = {"outputs": 8, "inputs": 8, "dtype": torch.bfloat16, "bias": True}
    assert dispatcher.select("linear", object, **facts) is ReferenceLinear


def test_linear_layers_of_another_dtype_are_refused_with_the_reason():
    dispatcher = Dispatcher(kernels("sm_90"), strict=True)
    with pytest.raises(UnsupportedError, match="float64"):
        dispatcher.select("linear", object, outputs=8, inputs=8, dtype=torch.float64, bias=True)


def test_sampling_ops_run_in_torch_by_name_behind_whatever_is_written_for_them():
    names = ("greedy", "penalize", "count_tokens", "add_bias", "logprobs", "sample")
    table = kernels("sm_90")
    for name in names:
        torchs = [k for k in table if k.op == name and k.name == "torch"]
        assert len(torchs) == 1
        others = [k for k in table if k.op == name and k.name != "torch"]
        assert all(k.supports({}).cost < torchs[0].supports({}).cost for k in others)
