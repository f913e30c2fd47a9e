"""The ops of routers by our kernels: which experts a token is given, and their weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inarch_intel_cpu.dtypes import TYPES
from inarch_intel_cpu.native import Native


class Routing:
    """Both ops of this file, bound to the kernels of one variant."""

    def __init__(self, native: Native) -> None:
        self._route, self._mix = native.kernel("route"), native.kernel("sparse_mixer")
        self._rules: dict[tuple[Any, ...], Tensor] = {}  # the struct Rules of csrc/routing.cpp

    def route(
        self,
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
        logits = logits.contiguous()
        tokens, experts = logits.shape
        sigmoid = scores == "sigmoid"
        rules = (
            *(experts, top_k, sigmoid, over_chosen, renormalise),
            *(groups, top_groups, group_experts),
        )
        if rules not in self._rules:
            self._rules[rules] = torch.tensor(rules, dtype=torch.int64)
        chosen, weights = _empty(tokens, top_k)
        self._route(
            self._rules[rules], logits, TYPES[logits.dtype], tokens, correction, least_sum, scale,
            chosen, weights,
        )  # fmt: skip
        return chosen, weights

    def sparse_mixer(self, logits: Tensor, *, jitter: float) -> tuple[Tensor, Tensor]:
        logits = logits.contiguous()
        chosen, weights = _empty(len(logits), 2)
        self._mix(logits, TYPES[logits.dtype], *logits.shape, jitter, chosen, weights)
        return chosen, weights


def _empty(tokens: int, top_k: int) -> tuple[Tensor, Tensor]:
    return torch.empty((tokens, top_k), dtype=torch.int64), torch.empty((tokens, top_k))
