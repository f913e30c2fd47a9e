"""What attention is, in float64 and one sequence at a time: the oracle of every attention kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inarch.conformance.batches import Scene, Sequence_
from inarch.hal.attention import AttentionSpec


def attend(
    spec: AttentionSpec,
    scene: Scene,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    history: Callable[[int], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """out [T, H, value_dim] and lse [T, H], natural; q, k, v [T, ...] float64, as attended with.

    history: K and V [prefix, ...] of sequence s.
    """
    outs, sums = [], []
    for s, sequence in enumerate(scene.sequences):
        tokens = slice(int(scene.batch.q_indptr[s]), int(scene.batch.q_indptr[s + 1]))
        old_k, old_v = (k[:0], v[:0]) if sequence.padding else history(s)
        keys, values = (
            torch.cat((old_k.double(), k[tokens])),
            torch.cat((old_v.double(), v[tokens])),
        )
        out, lse = _dense(spec, q[tokens], keys, values, visible(spec, sequence), sinks)
        outs.append(out)
        sums.append(lse)
    return torch.cat(outs), torch.cat(sums)


def visible(spec: AttentionSpec, sequence: Sequence_) -> Tensor:
    """bool [queries, prefix + queries]"""
    prefix, parents = sequence.prefix, sequence.parents
    depth: list[int] = []
    for parent in parents:
        depth.append(0 if parent < 0 else depth[parent] + 1)
    at = torch.tensor([*range(prefix), *(prefix + d for d in depth)])
    own = at[prefix:, None]
    seen = torch.ones(len(parents), len(at), dtype=torch.bool)
    if spec.causal:
        seen[:, prefix:] = _ancestors(parents)
        if spec.window is not None:
            seen &= own - at < spec.window
        if spec.chunk is not None:
            seen &= own // spec.chunk == at // spec.chunk
    elif spec.window is not None:
        seen &= (own - at).abs() < spec.window
    return seen


def _ancestors(parents: Sequence[int]) -> Tensor:
    """bool [Q, Q]: which tokens lead to each, itself included."""
    found = torch.eye(len(parents), dtype=torch.bool)
    for i, parent in enumerate(parents):
        if parent >= 0:
            found[i] |= found[parent]
    return found


def _dense(
    spec: AttentionSpec, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, sinks: Tensor | None
) -> tuple[Tensor, Tensor]:
    shared = spec.q_heads // spec.kv_heads
    k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
    scores = torch.einsum("qhd,lhd->qhl", q, k) * spec.scale
    if spec.softcap is not None:
        scores = torch.tanh(scores / spec.softcap) * spec.softcap
    scores = scores.masked_fill(~seen[:, None], -torch.inf)
    logits = scores
    if sinks is not None:
        column = sinks.double().view(1, -1, 1).expand(len(q), -1, 1)
        logits = torch.cat((scores, column), -1)
    lse = torch.logsumexp(logits, -1)
    weights = torch.exp(scores - lse.unsqueeze(-1))
    return torch.einsum("qhl,lhd->qhd", weights, v), lse
