"""What is decided before any GPU is touched: buckets of decodes, what may be captured, kernels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inarch.errors import UnsupportedError
from inarch.hal.dispatch import Dispatcher
from inarch.hal.executor import StepShape
from inarch.hal.ops import FACETS, OPS
from inarch.hal.reference.linear import ReferenceLinear
from inarch_nvidia.kernels import kernels
from inarch_triton.gpu.buckets import DECODES, bucket, shapes


@pytest.mark.parametrize("seqs", [1, 3, 8, 9, 64, 65, 200, 511, 512])
def test_decodes_are_padded_to_the_next_bucket_and_little_is_padding(seqs):
    padded = bucket(StepShape(seqs, seqs, 1))
    assert padded.captured
    assert padded.seqs == padded.tokens >= seqs
    assert padded.seqs == min(size for size in DECODES if size >= seqs)
    assert bucket(padded) == padded
    if seqs >= 64:
        assert padded.seqs <= 1.25 * seqs


STEPS = st.integers(2, 2048).flatmap(
    lambda tokens: st.builds(
        StepShape, st.just(tokens), st.integers(1, min(tokens - 1, 512)), st.just(2)
    )
)


@given(STEPS)
def test_steps_with_prompts_are_padded_with_room_for_the_padding(step):
    padded = bucket(step)
    assert padded.captured
    assert step.seqs <= padded.seqs <= padded.tokens
    assert padded.max_query == padded.tokens
    assert padded.seqs > step.seqs or padded.tokens == step.tokens
    assert padded.tokens - step.tokens < max(32, step.tokens / 3)
    assert bucket(padded) == padded


@given(STEPS, st.integers(1, 512))
def test_what_is_prepared_is_all_that_steps_may_need_and_nothing_else(most, seqs):
    most = StepShape(max(most.tokens, seqs), seqs, most.tokens)
    needed = {bucket(StepShape(n, n, 1)) for n in range(1, seqs + 1)}
    needed |= {
        bucket(StepShape(tokens, n, 2))
        for tokens in range(2, most.tokens + 1, 7)
        for n in {1, 63, 64, 200, seqs}
        if n <= min(seqs, tokens - 1)
    }
    prepared = shapes(most)
    assert needed <= set(prepared)
    assert all(bucket(shape) == shape for shape in prepared)
    assert len(prepared) == len(set(prepared)) <= 73
    assert all(shape.tokens < most.tokens + 128 + most.tokens / 4 for shape in prepared)


def test_the_first_steps_of_an_idle_server_are_prepared_first():
    first = shapes(StepShape(8192, 512, 8192))[:8]
    assert [shape.max_query == 1 for shape in first[:3]] == [True, False, True]
    assert max(shape.tokens for shape in first) <= 128


@pytest.mark.parametrize("shape", [StepShape(2049, 3, 98), StepShape(513, 513, 1)])
def test_what_is_not_captured_is_not_padded(shape):
    assert bucket(shape) == shape


# Of models that some of their layers' parts run by the reference for: --strict refuses these.
ON_THE_REFERENCE = {
    "route", "sparse_mixer", "clamped_swiglu", "xielu",
    "causal_conv", "gated_delta_rule", "state_space_scan", "gated_rms_norm",
}  # fmt: skip
FACETS_ON_THE_REFERENCE = {
    "latent_attention", "quantized_linear", "quantized_grouped_linear",
    "experts", "quantized_experts",  # are made of their parts
}  # fmt: skip


def test_every_op_and_facet_has_a_kernel_and_every_kernel_an_op():
    composites = {name for name, op in OPS.items() if op.parts}
    given = {kernel.op for kernel in kernels("sm_90")}
    assert set(OPS) - composites - ON_THE_REFERENCE <= given <= set(OPS) | set(FACETS)
    assert set(FACETS) - FACETS_ON_THE_REFERENCE <= given


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
