"""Experts against one token and one expert at a time, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inarch.hal.experts import ExpertsSpec, ExpertWeights
from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.ops.activation import clamped_swiglu, silu_mul
from inarch.hal.reference.experts import ComposedExperts, sort_by_expert
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear

SPEC = ExpertsSpec(experts=5, top_k=2, hidden=12, intermediate=7, dtype=torch.float32)


def normal(seed: int, *shape: int) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return torch.from_numpy(values)


def weights_of(spec: ExpertsSpec) -> ExpertWeights:
    experts, hidden, size = spec.experts, spec.hidden, spec.intermediate
    found = ExpertWeights(normal(1, experts, 2 * size, hidden), normal(2, experts, hidden, size))
    if spec.bias:
        biases = {
            "gate_up_bias": normal(3, experts, 2 * size),
            "down_bias": normal(4, experts, hidden),
        }
        found = replace(found, **biases)
    dtype = spec.dtype
    return ExpertWeights(*(None if w is None else w.to(dtype) for w in vars(found).values()))  # type: ignore[arg-type]


def run(spec: ExpertsSpec, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    linear = ReferenceGroupedLinear()
    layer = ComposedExperts(linear, linear, silu_mul)
    return layer.apply(x, experts, weights, layer.prepack(spec, weights_of(spec)))


def by_hand(spec: ExpertsSpec, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    w = ExpertWeights(*(None if t is None else t.double() for t in vars(weights_of(spec)).values()))  # type: ignore[arg-type]
    out = torch.zeros(x.shape, dtype=torch.float64)
    for token, chosen in enumerate(experts.tolist()):
        for place, expert in enumerate(chosen):
            share, read = weights[token, place].double(), x[token].double()
            if spec.scale_input:
                share, read = torch.tensor(1.0), read * share
            both = w.gate_up[expert] @ read
            both = both if w.gate_up_bias is None else both + w.gate_up_bias[expert]
            gate, up = both.chunk(2)
            given_ = w.down[expert] @ (gate * torch.sigmoid(gate) * up)
            given_ = given_ if w.down_bias is None else given_ + w.down_bias[expert]
            out[token] += share * given_
    return out


def routed(tokens: int, spec: ExpertsSpec, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x, experts (all of a token differ) and weights."""
    generator = np.random.default_rng(seed)
    chosen = [generator.permutation(spec.experts)[: spec.top_k] for _ in range(tokens)]
    experts = torch.from_numpy(np.array(chosen, np.int64).reshape(tokens, spec.top_k))
    return normal(seed + 5, tokens, spec.hidden), experts, normal(seed + 6, tokens, spec.top_k)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(0, 20),
    experts=st.integers(1, 9),
    top_k=st.integers(1, 9),
    changes=st.fixed_dictionaries({"bias": st.booleans(), "scale_input": st.booleans()}),
    seed=st.integers(0, 9999),
)
def test_every_token_is_the_weighted_sum_of_its_experts(
    tokens: int, experts: int, top_k: int, changes: dict[str, bool], seed: int
) -> None:
    spec = replace(SPEC, experts=experts, top_k=min(top_k, experts), **changes)
    inputs = routed(tokens, spec, seed)
    expected = by_hand(spec, *inputs).float()
    torch.testing.assert_close(run(spec, *inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_dtype_and_its_accuracy(dtype: torch.dtype) -> None:
    spec = replace(SPEC, dtype=dtype)
    x, experts, weights = routed(30, spec)
    found = run(spec, x.to(dtype), experts, weights)
    expected = by_hand(spec, x.to(dtype), experts, weights)
    assert found.dtype == dtype
    assert (found.double() - expected).norm() < 0.02 * expected.norm()


def test_a_token_does_not_feel_its_neighbours() -> None:
    x, experts, weights = routed(64, SPEC)
    together = run(SPEC, x, experts, weights)
    for one in range(0, 64, 7):
        alone = run(SPEC, x[one : one + 1], experts[one : one + 1], weights[one : one + 1])
        torch.testing.assert_close(together[one : one + 1], alone, rtol=1e-6, atol=1e-5)


def test_the_same_step_twice_is_the_same_to_the_last_bit() -> None:
    inputs = routed(64, SPEC)
    assert torch.equal(run(SPEC, *inputs), run(SPEC, *inputs))


def test_rows_are_sorted_by_expert_and_keep_their_order_within_one() -> None:
    order, groups = sort_by_expert(torch.tensor([[3, 0], [0, 3], [1, 0]]), 5)
    assert order.tolist() == [1, 2, 5, 4, 0, 3]
    assert groups.on_host == [3, 4, 4, 6, 6]
    assert groups.ends.dtype == torch.int32


def test_a_grouped_product_leaves_out_experts_without_rows() -> None:
    weight, x = normal(0, 4, 3, 6), normal(1, 5, 6)
    weight[1] = torch.nan  # nobody asks for it
    linear = ReferenceGroupedLinear()
    packed = linear.prepack(GroupedLinearSpec(4, 3, 6, torch.float32), weight, None)
    found = linear.apply(x, packed, RowGroups(torch.tensor([2, 2, 5, 5], dtype=torch.int32)))
    expected = torch.cat((x[:2] @ weight[0].T, x[2:] @ weight[2].T))
    torch.testing.assert_close(found, expected)


def swiglu_by_hand(gate: float, up: float, alpha: float, limit: float) -> float:
    gate, up = min(gate, limit), max(-limit, min(up, limit))
    return gate / (1 + float(np.exp(-alpha * gate))) * (up + 1)


def test_the_clamped_activation_cuts_gates_above_and_ups_on_both_sides() -> None:
    x = torch.tensor([[9.0, -9.0, 0.5, -9.0, 9.0, -0.5]])
    found: Any = clamped_swiglu(x, alpha=1.702, limit=7.0)
    pairs = [(9.0, -9.0), (-9.0, 9.0), (0.5, -0.5)]
    expected = [swiglu_by_hand(*pair, 1.702, 7.0) for pair in pairs]
    assert found.tolist()[0] == pytest.approx(expected, rel=1e-5)
