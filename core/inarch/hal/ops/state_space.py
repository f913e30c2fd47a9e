"""Mamba-2's scan: a linear state space whose transition is one number a head.

Letters in shapes: n runs of L tokens, H heads of P features, G groups, N state size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inarch.hal.op import Residency, op
from inarch.hal.ops.chunks import chunked, pairwise_decay, read_slots, unchunked

CHUNK = 128


@op(residency=Residency.STATE)
def state_space_scan(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor,
    states: Tensor,
    read: Tensor,
    write: Tensor,
) -> tuple[Tensor, Tensor]:
    """For each token in turn  S = exp(dt a) S + dt x b^T,  out = S c + skip x.

    x [n, L, H, P]; dt [n, L, H], time steps of at least 0; a [H], at most 0; b, c [n, L, G, N], each
    for H / G heads side by side; skip [H]. states [slots, H, P, N] float32: S is read from slots
    read [n] (zeros from slot 0) and written to slots write [n]. Returns out [n, L, H, P] in x's dtype,
    and states. Source: Dao and Gu, 2024, arXiv:2405.21060.
    """
    groups = x.shape[2] // b.shape[2]
    b, c = (y.float().repeat_interleave(groups, dim=2) for y in (b, c))
    wide, dt = x.float(), dt.float().unsqueeze(-1)
    state = read_slots(states, read)
    step = _recurrent if x.shape[1] == 1 else _chunks
    out, state = step(wide * dt, dt * a.float().unsqueeze(-1), b, c, state)
    out = out + wide * skip.float().unsqueeze(-1)
    return out.to(x.dtype), states.index_copy_(0, write, state)


def _recurrent(
    x: Tensor, decay: Tensor, b: Tensor, c: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token a run: x [n, 1, H, P], decay [n, 1, H, 1], b, c [n, 1, H, N]."""
    x, decay, b, c = (y.squeeze(1) for y in (x, decay, b, c))
    state = state * decay.exp().unsqueeze(-1) + x.unsqueeze(-1) * b.unsqueeze(-2)
    return (state @ c.unsqueeze(-1)).squeeze(-1).unsqueeze(1), state


def _chunks(x: Tensor, decay: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Within a chunk as masked attention, from chunk to chunk through the state."""
    length = x.shape[1]
    x, decay, b, c = (chunked(y, min(CHUNK, length)) for y in (x, decay, b, c))
    total = decay.cumsum(-2)
    pairs = pairwise_decay(decay)
    within = (c @ b.transpose(-1, -2)) * pairs.squeeze(-1)
    outs = within @ x
    c, b, last = c * total.exp(), b * pairs[..., -1, :, :], total[..., -1:, :].exp()
    carried = []
    for i in range(x.shape[2]):
        carried.append(c[:, :, i] @ state.transpose(-1, -2))
        state = state * last[:, :, i] + x[:, :, i].transpose(-1, -2) @ b[:, :, i]
    return unchunked(outs + torch.stack(carried, dim=2), length), state
