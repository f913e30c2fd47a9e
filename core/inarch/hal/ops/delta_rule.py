"""The gated delta rule: linear attention that corrects what its state already holds.

Letters in shapes: n runs of L tokens, G key heads, H value heads, K and V their features, c chunks of
C tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inarch.hal.op import Residency, op
from inarch.hal.ops.chunks import chunked, pairwise_decay, read_slots, unchunked

CHUNK = 64
CHANNEL_CHUNK = 16  # where decays differ by feature, pairs of tokens take K times the memory
EPS = 1e-6


@op(residency=Residency.STATE)
def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    beta: Tensor,
    states: Tensor,
    read: Tensor,
    write: Tensor,
) -> tuple[Tensor, Tensor]:
    """For each token in turn  S = exp(decay) S + k (beta (v - k^T exp(decay) S))^T,  out = S^T q.

    q, k [n, L, G, K], scaled here to unit length, q by K**-0.5 more; each serves H / G value heads
    side by side. v [n, L, H, V]; beta [n, L, H]; decay [n, L, H, 1] or [n, L, H, K], natural
    logarithms, none above 0. states [slots, H, K, V] float32: S is read from slots read [n] (zeros
    from slot 0) and written to slots write [n]. Returns out [n, L, H, V] in v's dtype, and states.

    Chunks of tokens at once: Yang et al., 2024, arXiv:2406.06484 and 2412.06464; decays by feature:
    Kimi team, 2025, arXiv:2510.26692.
    """
    groups = v.shape[2] // k.shape[2]
    q, k = (_unit(x.float()).repeat_interleave(groups, dim=2) for x in (q, k))
    q = q * q.shape[-1] ** -0.5
    state = read_slots(states, read)
    step = _recurrent if v.shape[1] == 1 else _chunks
    out, state = step(q, k, v.float(), decay.float(), beta.float().unsqueeze(-1), state)
    return out.to(v.dtype), states.index_copy_(0, write, state)


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + EPS)


def _recurrent(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token a run."""
    q, k, v, decay, beta = (x.squeeze(1) for x in (q, k, v, decay, beta))
    state = state * decay.exp().unsqueeze(-1)
    held = (state * k.unsqueeze(-1)).sum(-2)
    state = state + k.unsqueeze(-1) * ((v - held) * beta).unsqueeze(-2)
    return (state * q.unsqueeze(-1)).sum(-2).unsqueeze(1), state


def _chunks(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """All tokens of a chunk at once: what they write is a triangular system, solved beforehand."""
    length = q.shape[1]
    size = CHUNK if decay.shape[-1] == 1 else CHANNEL_CHUNK
    q, k, v, decay, beta = (chunked(x, size) for x in (q, k, v, decay, beta))
    total = decay.cumsum(-2)  # [n, H, c, C, 1 or K]
    pairs = pairwise_decay(decay)
    system = _products(k * beta, k, pairs)
    values, keys = (
        torch.linalg.solve_triangular(system, x, upper=False, unitriangular=True)
        for x in (v * beta, k * beta * total.exp())
    )
    within = _products(q, k, pairs)
    q, k = q * total.exp(), k * pairs[..., -1, :, :]
    last = total[..., -1, :].exp().unsqueeze(-1)
    outs = []
    for c in range(q.shape[2]):
        new = values[:, :, c] - keys[:, :, c] @ state
        outs.append(q[:, :, c] @ state + within[:, :, c] @ new)
        state = state * last[:, :, c] + k[:, :, c].transpose(-1, -2) @ new
    return unchunked(torch.stack(outs, dim=2), length), state


def _products(a: Tensor, b: Tensor, pairs: Tensor) -> Tensor:
    """Decayed dot products of a_i and b_j: [..., C, K] twice, [..., C, C, 1 or K] -> [..., C, C]."""
    if pairs.shape[-1] == 1:
        return (a @ b.transpose(-1, -2)) * pairs.squeeze(-1)
    return (a.unsqueeze(-2) * b.unsqueeze(-3) * pairs).sum(-1)
