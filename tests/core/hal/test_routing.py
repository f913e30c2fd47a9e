"""Routers against formulas worked out expert by expert, and against transformers' own modules."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.phimoe.modeling_phimoe import sparsemixer

from inarch.hal.ops.routing import route, sparse_mixer

Chosen = dict[int, float]  # expert -> weight


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    """Any combination that `route` takes, for the number of experts it comes with."""
    groups = draw(st.integers(1, 4))
    members = draw(st.integers(2, 5))
    top_groups = draw(st.integers(1, groups))
    return {
        "experts": groups * members,
        "top_k": draw(st.integers(1, members * top_groups)),
        "scores": draw(st.sampled_from(["softmax", "sigmoid"])),
        "renormalise": draw(st.booleans()),
        "least_sum": draw(st.sampled_from([1e-20, 0.7])),
        "scale": draw(st.sampled_from([1.0, 2.5])),
        "groups": groups,
        "top_groups": top_groups,
        "group_experts": draw(st.integers(1, 2)),
    }


def by_hand(logits: list[float], correction: list[float] | None, rule: dict[str, Any]) -> Chosen:
    experts = range(len(logits))
    total = sum(math.exp(logit) for logit in logits)
    if rule["scores"] == "sigmoid":
        scores = [1 / (1 + math.exp(-logit)) for logit in logits]
    else:
        scores = [math.exp(logit) / total for logit in logits]
    rank = [score + bias for score, bias in zip(scores, correction or [0.0] * 99, strict=False)]
    size = len(logits) // rule["groups"]
    members = [list(experts)[start : start + size] for start in range(0, len(logits), size)]

    def group_rank(group: list[int]) -> float:
        return sum(sorted((rank[e] for e in group), reverse=True)[: rule["group_experts"]])

    best_groups = sorted(members, key=group_rank, reverse=True)[: rule["top_groups"]]
    allowed = [expert for group in best_groups for expert in group]
    best = sorted(allowed, key=lambda e: rank[e], reverse=True)[: rule["top_k"]]
    divisor = max(sum(scores[e] for e in best), rule["least_sum"]) if rule["renormalise"] else 1
    return {e: scores[e] / divisor * rule["scale"] for e in best}


def as_dicts(found: tuple[Tensor, Tensor]) -> list[Chosen]:
    experts, weights = found
    assert experts.dtype == torch.int64
    assert weights.dtype == torch.float32
    rows = zip(experts.tolist(), weights.tolist(), strict=True)
    return [dict(zip(*row, strict=True)) for row in rows]


def spread(seed: int, tokens: int, experts: int) -> Tensor:
    """Logits of which no two in a row are near to each other, nor any sums of their scores."""
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.normal(0, 2, (tokens, experts)).astype(np.float32))


@settings(max_examples=150, deadline=None)
@given(rule=rules(), corrected=st.booleans(), tokens=st.integers(0, 5), seed=st.integers(0, 9999))
def test_the_best_experts_of_the_best_groups_are_weighted_by_their_scores(
    rule: dict[str, Any], corrected: bool, tokens: int, seed: int
) -> None:
    experts = rule.pop("experts")
    logits = spread(seed, tokens, experts)
    correction = spread(seed + 1, 1, experts)[0] if corrected else None
    found = as_dicts(route(logits, correction, **rule))
    bias = None if correction is None else correction.tolist()
    expected = [by_hand(row, bias, rule) for row in logits.tolist()]
    assert len(found) == tokens
    for got, wanted in zip(found, expected, strict=True):
        assert got == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_scores_may_be_of_the_chosen_logits_alone(scores: str) -> None:
    logits = torch.tensor([[1.0, 3.0, -2.0, 2.0]])
    (found,) = as_dicts(route(logits, None, top_k=2, scores=scores, over_chosen=True))
    softmax = {1: 1 / (1 + math.exp(-1)), 3: 1 / (1 + math.exp(1))}
    sigmoid = {1: 1 / (1 + math.exp(-3)), 3: 1 / (1 + math.exp(-2))}
    assert found == pytest.approx(softmax if scores == "softmax" else sigmoid)


def test_large_logits_still_order_the_experts_where_their_sigmoids_are_all_one() -> None:
    logits = torch.tensor([[40.0, 50.0, 60.0, 45.0]])
    (found,) = as_dicts(route(logits, None, top_k=2, scores="sigmoid", over_chosen=True))
    assert set(found) == {2, 1}


def test_weights_of_half_precision_logits_are_float32() -> None:
    logits = spread(0, 3, 8).bfloat16()
    assert as_dicts(route(logits, None, top_k=3)) == as_dicts(route(logits.float(), None, top_k=3))


@pytest.mark.parametrize("normed", [True, False])
def test_deepseek_v3_routes_alike_in_transformers(normed: bool) -> None:
    rule = {"groups": 4, "top_groups": 2, "scale": 2.5, "renormalise": normed}
    config = SimpleNamespace(
        num_experts_per_tok=6, num_local_experts=32, hidden_size=16, norm_topk_prob=normed
    )
    grouped = {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5}
    router = DeepseekV3TopkRouter(SimpleNamespace(**vars(config), **grouped))
    router.weight.data.copy_(spread(1, 32, 16))
    router.e_score_correction_bias.copy_(spread(2, 1, 32)[0] / 8)
    logits, weights, experts = router(spread(3, 50, 16))
    bias = router.e_score_correction_bias
    found = route(logits, bias, top_k=6, scores="sigmoid", group_experts=2, **rule)
    for got, wanted in zip(as_dicts(found), as_dicts((experts, weights)), strict=True):
        assert got == pytest.approx(wanted, rel=1e-5)


def test_deepseek_v2_routes_alike_in_transformers() -> None:
    config = SimpleNamespace(
        num_experts_per_tok=6,
        num_experts=32,
        hidden_size=16,
        routed_scaling_factor=16.0,
        topk_method="group_limited_greedy",
        n_group=4,
        topk_group=2,
    )
    router = DeepseekV2TopkRouter(config)
    router.weight.data.copy_(spread(1, 32, 16))
    logits, weights, experts = router(spread(3, 50, 16) / 4)
    found = route(logits, None, top_k=6, groups=4, top_groups=2, scale=16.0)
    for got, wanted in zip(as_dicts(found), as_dicts((experts, weights)), strict=True):
        assert got == pytest.approx(wanted, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    experts=st.integers(2, 9), jitter=st.sampled_from([0.01, 0.1, 0.4]), seed=st.integers(0, 9999)
)
def test_the_sparse_mixer_chooses_as_in_transformers(
    experts: int, jitter: float, seed: int
) -> None:
    logits = spread(seed, 8, experts)
    weights, chosen = sparsemixer(logits, jitter, training=False)
    found = sparse_mixer(logits, jitter=jitter)
    for got, wanted in zip(as_dicts(found), as_dicts((chosen, weights)), strict=True):
        assert got == pytest.approx(wanted, rel=1e-5)
