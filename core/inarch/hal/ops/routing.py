"""Routers of mixtures of experts: from logits to the experts of each token, and their weights.

Letters in shapes: T tokens, E experts, k experts of a token. Both ops give the chosen experts
[T, k] int64 and their weights [T, k] float32. Ties go to any of the equal ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inarch.hal.op import op


@op()
def route(
    logits: Tensor,
    correction: Tensor | None,
    *,
    top_k: int,
    scores: str = "softmax",
    over_chosen: bool = False,
    renormalise: bool = False,
    least_sum: float = 1e-20,
    scale: float = 1.0,
    groups: int = 1,
    top_groups: int = 1,
    group_experts: int = 1,
) -> tuple[Tensor, Tensor]:
    """The top_k experts of each token by score, weighted by their scores.

    logits [T, E]; correction [E] float32 or None: is added to the scores for the choice alone.
    scores: "softmax" over the experts or "sigmoid", in float32. over_chosen: choose by logits, then
    take the scores of the chosen logits alone. renormalise: divide the weights by their sum, at
    least least_sum; scale multiplies them in the end.

    groups: the experts lie in so many equal groups of neighbours, and are chosen among those of the
    top_groups best; a group counts as the sum of its group_experts best experts (DeepSeek-V2 takes
    one, arXiv:2405.04434; V3 two, arXiv:2412.19437). There must be top_k experts in top_groups.
    """
    logits = logits.float()
    if over_chosen:
        chosen, experts = logits.topk(top_k, dim=-1)
        weights = _score(chosen, scores)
    else:
        scored = _score(logits, scores)
        ranked = scored if correction is None else scored + correction
        if groups > 1:
            ranked = _best_groups(ranked, groups, top_groups, group_experts)
        experts = ranked.topk(top_k, dim=-1).indices
        weights = scored.gather(-1, experts)
    if renormalise:
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=least_sum)
    return experts, weights * scale


@op()
def sparse_mixer(logits: Tensor, *, jitter: float) -> tuple[Tensor, Tensor]:
    """Two experts, one after the other, as in Phi-3.5-MoE: logits [T, E], k = 2.

    The weight of each is its share in a softmax over those logits that are near to it: whose
    distance from it is at most 2 * jitter of the larger of the two magnitudes. The second is chosen
    with the first left out. Source: Liu et al., 2024, SparseMixer-v2, arXiv:2409.12136.
    """
    logits = logits.float()
    first, first_weight = _near_the_best(logits, logits, jitter)
    rest = logits.scatter(-1, first, -torch.inf)
    second, second_weight = _near_the_best(rest, logits, jitter)
    return torch.cat((first, second), -1), torch.cat((first_weight, second_weight), -1)


def _score(logits: Tensor, scores: str) -> Tensor:
    return logits.sigmoid() if scores == "sigmoid" else logits.softmax(dim=-1)


def _best_groups(ranked: Tensor, groups: int, top_groups: int, group_experts: int) -> Tensor:
    """-inf for the experts outside the best groups."""
    grouped = ranked.view(len(ranked), groups, ranked.shape[1] // groups)
    rank = grouped.topk(group_experts, dim=-1).values.sum(dim=-1)
    best = rank.topk(top_groups, dim=-1).indices
    kept = torch.zeros_like(rank, dtype=torch.bool).scatter_(-1, best, True)
    return grouped.masked_fill(~kept.unsqueeze(-1), -torch.inf).flatten(1)


def _near_the_best(candidates: Tensor, logits: Tensor, jitter: float) -> tuple[Tensor, Tensor]:
    best, expert = candidates.max(dim=-1, keepdim=True)
    far = (best - candidates) / logits.abs().clamp(min=best) > 2 * jitter
    weights = candidates.masked_fill(far, -torch.inf).softmax(dim=-1)
    return expert, weights.gather(-1, expert)
