"""Attention over dense K and V of equally shaped sequences: the definition of every convention.

Query heads that share a KV head are folded into query rows, so that K and V are never repeated.
torch's fused attention serves where it can express what is asked for, else float32 arithmetic.
Letters in shapes: n sequences, Q queries and L keys each, H query heads, G KV heads, D head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """out [n, Q, H, value_dim]: query i sees the keys 0..i. q [n, Q, H, D], k, v [n, Q, G, D]."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    return out.transpose(1, 2)


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, scale: float
) -> Tensor:
    """out [n, Q, H, value_dim]; visible bool [n, Q, L], None = all.

    q [n, Q, H, D], k [n, L, G, D], v [n, L, G, value_dim]; all finite, masked places too.
    """
    heads = k.shape[2]
    mask = None if visible is None else _fold_mask(visible, q.shape[2] // heads)
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    out = F.scaled_dot_product_attention(_fold(q, heads), k, v, attn_mask=mask, scale=scale)
    return _unfold(out, q.shape[1])


def explicit_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    visible: Tensor | None,
    scale: float,
    *,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """out [n, Q, H, value_dim] and lse [n, Q, H], float32: `masked_attention`, step by step.

    softcap * tanh(score / softcap) comes before the mask. sinks [H] are logits that join the
    denominator, and so the log-sum-exp, but no value. A row that sees nothing gives 0 and -inf
    (with a sink: the sink).
    """
    heads, shared = k.shape[2], q.shape[2] // k.shape[2]
    rows = _fold(q, heads).float() * scale
    scores = rows @ k.permute(0, 2, 3, 1).float()  # [n, G, shared * Q, L]
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if visible is not None:
        scores = scores.masked_fill(~_fold_mask(visible, shared), -torch.inf)
    highest = scores.amax(-1, keepdim=True)
    if sinks is not None:
        sink = sinks.float().view(heads, shared, 1).expand(heads, shared, q.shape[1]).flatten(1)
        highest = torch.maximum(highest, sink.unsqueeze(-1))
    highest = highest.masked_fill(highest == -torch.inf, 0.0)  # so that exp(-inf - highest) is 0
    weights = torch.exp(scores - highest)
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + torch.exp(sink.unsqueeze(-1) - highest)
    out = (weights @ v.transpose(1, 2).float()) / total.masked_fill(total == 0, 1.0)
    lse = highest + torch.log(total)
    return _unfold(out, q.shape[1]), _unfold(lse, q.shape[1]).squeeze(-1)


def _fold(q: Tensor, heads: int) -> Tensor:
    """[n, Q, H, D] -> [n, G, shared * Q, D], where H = G * shared."""
    n, queries, _, dim = q.shape
    return q.reshape(n, queries, heads, -1, dim).permute(0, 2, 3, 1, 4).reshape(n, heads, -1, dim)


def _unfold(out: Tensor, queries: int) -> Tensor:
    """The inverse of `_fold`."""
    n, heads, _, dim = out.shape
    return out.view(n, heads, -1, queries, dim).permute(0, 3, 1, 2, 4).reshape(n, queries, -1, dim)


def _fold_mask(visible: Tensor, shared: int) -> Tensor:
    """[n, Q, L] -> [n, 1, shared * Q, L]; one query needs no copy, it broadcasts over the rows."""
    if visible.shape[1] == 1:
        return visible.unsqueeze(1)
    return visible.unsqueeze(1).expand(-1, shared, -1, -1).flatten(1, 2).unsqueeze(1)
