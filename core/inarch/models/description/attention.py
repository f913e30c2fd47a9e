"""Softmax attention, as data: what a layer projects, rotates and keeps of a token."""

from __future__ import annotations

from dataclasses import dataclass

from inarch.models.description.norm import Norm
from inarch.models.description.rotary import Rotary
from inarch.models.parameters import Parameters, linear, nested


@dataclass(frozen=True)
class GroupedQueryAttention:
    """Softmax attention in which q_heads / kv_heads query heads share one KV head."""

    q_heads: int
    kv_heads: int
    head_dim: int
    rotary: Rotary | None  # None: the layer knows no positions
    scale: float  # multiplies q . k
    window: int | None = None  # tokens a query sees, itself included; None = all
    qkv_bias: bool = False
    out_bias: bool = False
    causal: bool = True  # False: a query sees both sides, and `window` counts on each
    qk_norm: Norm | None = None  # of every head of q and k, before the rotation

    def parameters(self, hidden: int) -> Parameters:
        q, kv = self.q_heads * self.head_dim, self.kv_heads * self.head_dim
        found = nested(
            qkv=linear(hidden, q, kv, kv, bias=self.qkv_bias),
            out=linear(q, hidden, bias=self.out_bias),
        )
        if self.qk_norm is not None:
            own = self.qk_norm.parameters(self.head_dim)
            found |= nested(q_norm=own, k_norm=own)
        return found
