"""Softmax attention, as data: what a layer projects, rotates and keeps of a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inarch.models.description.norm import Norm
from inarch.models.description.rotary import Rotary
from inarch.models.parameters import Parameter, Parameters, linear, nested


@dataclass(frozen=True)
class QueryScaling:
    """Sharpens attention as the context grows: q of position p times 1 + beta * log1p(floor(t)).

    t = (p + first) / tokens. Source: Nakanishi, 2025, arXiv:2501.19399.
    """

    beta: float
    tokens: float
    first: int = 0  # the number that is given to the first position


@dataclass(frozen=True)
class GroupedQueryAttention:
    """Softmax attention in which q_heads / kv_heads query heads share one KV head.

    qk_norm is of every head of q and k, all heads with the same weight; norm_over: or each head with
    a weight of its own, or all heads of q, and of k, as one vector. norm_after_rotary: it comes
    after the rotation, not before.
    """

    q_heads: int
    kv_heads: int
    head_dim: int
    rotary: Rotary | None  # None: the layer knows no positions
    scale: float  # multiplies q . k
    window: int | None = None  # tokens a query sees, itself included; None = all
    chunk: int | None = None  # a query sees only its own of the chunks of so many tokens
    qkv_bias: bool = False
    out_bias: bool = False
    causal: bool = True  # False: a query sees both sides, and `window` counts on each
    qk_norm: Norm | None = None
    norm_over: Literal["head", "each_head", "all_heads"] = "head"
    norm_after_rotary: bool = False
    clip: float | None = None  # q, k and v are clamped to +-clip
    query_scaling: QueryScaling | None = None
    softcap: float | None = None  # scores are soft-capped to +-softcap
    sinks: bool = False  # a learned logit per query head joins each denominator
    out_gate: bool = (
        False  # what a head gives is multiplied by the sigmoid of a gate, feature by feature
    )

    def parameters(self, hidden: int) -> Parameters:
        q, kv = self.q_heads * self.head_dim, self.kv_heads * self.head_dim
        gate = (q,) if self.out_gate else ()
        found = nested(
            qkv=linear(hidden, q, kv, kv, *gate, bias=self.qkv_bias),
            out=linear(q, hidden, bias=self.out_bias),
        )
        if self.qk_norm is not None:
            norms = (self._norm(self.qk_norm, heads) for heads in (self.q_heads, self.kv_heads))
            found |= nested(**dict(zip(("q_norm", "k_norm"), norms, strict=True)))
        return found | ({"sinks": Parameter((self.q_heads,))} if self.sinks else {})

    def _norm(self, norm: Norm, heads: int) -> Parameters:
        match self.norm_over:
            case "head":
                return norm.parameters(self.head_dim)
            case "each_head":
                return norm.parameters(self.head_dim, heads)
            case "all_heads":
                return norm.parameters(self.head_dim * heads)
