"""Latent attention in plain PyTorch, over the pages of any KV store.

Rows are written and gathered as the reference attention does with the keys of one KV head. Each group
of sequences is then attended in whichever of the two ways takes fewer multiplications.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.attention import AttentionBatch, AttentionSpec, HostPlan
from inarch.hal.device import Device
from inarch.hal.executor import StepShape
from inarch.hal.kv import KVState, KVStore
from inarch.hal.latent import LatentSpec, UpProjection
from inarch.hal.reference.attention import BLOCK, Group, Plan, ReferenceAttention


class ReferenceLatentAttention:
    """Serves every spec on every torch device."""

    capturable = False  # its groups differ from step to step

    def __init__(self, spec: LatentSpec, store: KVStore, device: Device) -> None:
        self._spec, self._store = spec, store
        kept = spec.kv_heads
        rows = AttentionSpec(
            spec.q_heads, kept.kv_heads, kept.key_dim, kept.value_dim, spec.scale, spec.dtype
        )
        self._rows = ReferenceAttention(rows, store, device)

    def kept_bytes(self, most: StepShape) -> int:
        return 0

    def plan(self, batch: AttentionBatch) -> HostPlan:
        return self._rows.plan(batch)

    def run(
        self,
        layer: int,
        q_nope: Tensor,
        q_rope: Tensor,
        latent: Tensor,
        k_rope: Tensor,
        kv: KVState,
        plan: Plan,
        up: UpProjection,
    ) -> tuple[Tensor, KVState]:
        new = torch.cat((latent, k_rope), -1).unsqueeze(1)
        nothing = new[..., :0]
        kv = self._store.write(kv, layer, plan.slots, new, nothing)
        out = q_nope.new_empty((*q_nope.shape[:2], self._spec.value_dim))
        for group in plan.groups:
            rows, _ = self._rows.gather(group, layer, new, nothing, kv)
            expanded = self._spec.better_expanded(group.queries, group.span)
            attend = self._expanded if expanded else self._absorbed
            queries = q_nope[group.tokens], q_rope[group.tokens]
            out[group.tokens] = attend(group, *queries, rows.squeeze(2), up)
        return out, kv

    def _absorbed(
        self, group: Group, q_nope: Tensor, q_rope: Tensor, rows: Tensor, up: UpProjection
    ) -> Tensor:
        """out [n * Q, H, V]; rows [n, L, R + P]."""
        q = torch.cat((up.absorb(q_nope), q_rope), -1)
        keys = rows.unsqueeze(2)
        found = self._attend(group, q, keys, keys[..., : self._spec.kv_rank])
        return up.values(found)

    def _expanded(
        self, group: Group, q_nope: Tensor, q_rope: Tensor, rows: Tensor, up: UpProjection
    ) -> Tensor:
        """As `_absorbed`, a few heads at a time: all keys and values could be many times the rows."""
        spec = self._spec
        q = torch.cat((q_nope, q_rope), -1)
        latents, k_rope = torch.split(rows, [spec.kv_rank, spec.rope_dim], -1)
        key_dim = spec.nope_dim + spec.rope_dim
        step = max(1, BLOCK // (rows.shape[0] * rows.shape[1] * (key_dim + spec.value_dim)))
        outs = []
        for start in range(0, spec.q_heads, step):
            heads = slice(start, start + step)
            k_nope, v = up.expand(latents.flatten(0, 1), heads)
            shared = k_rope.flatten(0, 1).unsqueeze(1).expand(-1, k_nope.shape[1], -1)
            k = torch.cat((k_nope, shared), -1)
            # torch's fused attention wants values as wide as keys.
            v = F.pad(v, (0, max(0, key_dim - spec.value_dim)))
            dense = (torch.unflatten(x, 0, rows.shape[:2]) for x in (k, v))
            outs.append(self._attend(group, q[:, heads], *dense)[..., : spec.value_dim])
        return torch.cat(outs, 1)

    def _attend(self, group: Group, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """out [n * Q, h, ...] of q [n * Q, h, ...]."""
        queries = torch.unflatten(q, 0, (group.size, group.queries))
        return self._rows.attend(group, queries, k, v, None, lse=False)[0].flatten(0, 1)
