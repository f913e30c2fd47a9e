"""Latent attention: what is decoded or extended by our kernels, long prompts as the reference has them.

Few queries over many keys are attended absorbed: over the rows of the pages as they are, all heads at
once. The products that map queries to latents and latents to values have a weight for each head, which
is what the experts of a mixture have too, so theirs serve. Many queries are attended expanded, where
almost all the work is in two large products that torch does as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch, AttentionPlan, AttentionSpec, HostPlan
from inarch.hal.device import Device
from inarch.hal.executor import StepShape
from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.kv import KVState, KVStore
from inarch.hal.latent import LatentSpec, UpProjection
from inarch.hal.reference.grouping import query_slots
from inarch.hal.reference.latent import ReferenceLatentAttention
from inarch_intel_cpu.attention import CpuAttention, Plan
from inarch_intel_cpu.experts import NativeGroupedLinear, PackedStack
from inarch_intel_cpu.native import Native


@dataclass(frozen=True, eq=False)
class Part:
    """Some sequences of a step. tokens: theirs in the batch; None: all."""

    plan: AttentionPlan
    tokens: Tensor | None

    def of(self, x: Tensor) -> Tensor:
        return x if self.tokens is None else x[self.tokens]


@dataclass(frozen=True, eq=False)
class LatentPlan:
    slots: Tensor  # int64 [T]
    absorbed: Part | None
    expanded: Part | None


@dataclass(frozen=True, eq=False)
class PackedUp:
    """An up-projection with a weight for each head: N -> R, and R -> V."""

    up: UpProjection
    absorb: PackedStack
    values: PackedStack


class CpuLatentAttention:
    """Serves what `attending.supports_pages` accepts. Sums are float32."""

    capturable = False  # work differs from step to step

    def __init__(self, spec: LatentSpec, store: KVStore, device: Device, *, native: Native) -> None:
        self._spec, self._store, self._device, self._native = spec, store, device, native
        row = spec.kv_rank + spec.rope_dim
        rows = AttentionSpec(spec.q_heads, 1, row, spec.kv_rank, spec.scale, torch.float32)
        self._rows = CpuAttention(rows, store, device, native=native, turns=())
        self._attend = native.kernel("attend_latents")
        self._by_head = NativeGroupedLinear(native)
        self._reference = ReferenceLatentAttention(spec, store, device)
        self._packed: dict[int, PackedUp] = {}

    def kept_bytes(self, most: StepShape) -> int:
        return 0

    def plan(self, batch: AttentionBatch) -> HostPlan:
        queries = np.diff(batch.q_indptr).astype(np.int64)
        pairs = zip(queries.tolist(), batch.kv_lens.tolist(), strict=True)
        expanded = np.array([self._spec.better_expanded(*pair) for pair in pairs], bool)
        slots = torch.from_numpy(query_slots(batch, self._store.layout.page_tokens))
        few, many = self._part(batch, ~expanded), self._part(batch, expanded)
        absorbed = None if few is None else Part(self._rows.work(few[0]), few[1])
        later = None if many is None else self._reference.plan(many[0])

        def bind(there: Mapping[str, Tensor]) -> LatentPlan:
            long = None if later is None or many is None else Part(later.on(self._device), many[1])
            return LatentPlan(slots, absorbed, long)

        return HostPlan({}, {}, bind)

    def _part(
        self, batch: AttentionBatch, chosen: np.ndarray
    ) -> tuple[AttentionBatch, Tensor | None] | None:
        """The sequences chosen, as a batch of their own."""
        if chosen.all():
            return batch, None
        queries = np.diff(batch.q_indptr)
        if not queries[chosen].any():
            return None
        tokens = np.flatnonzero(np.repeat(chosen, queries))
        part = replace(
            batch,
            q_indptr=np.concatenate(([0], np.cumsum(queries[chosen]))).astype(np.int32),
            kv_lens=batch.kv_lens[chosen],
            rows=batch.rows[chosen],
            tree_parent=None if batch.tree_parent is None else batch.tree_parent[tokens],
            shared=None,
        )
        return part, torch.from_numpy(tokens)

    def run(
        self,
        layer: int,
        q_nope: Tensor,
        q_rope: Tensor,
        latent: Tensor,
        k_rope: Tensor,
        kv: KVState,
        plan: LatentPlan,
        up: UpProjection,
    ) -> tuple[Tensor, KVState]:
        given = (q_nope, q_rope, latent, k_rope)
        new = torch.cat((latent, k_rope), -1).unsqueeze(1)
        kv = self._store.write(kv, layer, plan.slots, new, new[..., :0])
        if plan.expanded is None and plan.absorbed is not None:
            return self._absorbed(layer, q_nope, q_rope, kv, plan.absorbed.plan, up), kv
        out = q_nope.new_empty((*q_nope.shape[:2], self._spec.value_dim))
        for part in (plan.absorbed, plan.expanded):
            if part is None:
                continue
            own = [part.of(x) for x in given]
            if part is plan.absorbed:
                found = self._absorbed(layer, own[0], own[1], kv, part.plan, up)
            else:  # its rows are written once more, where they are already
                found, kv = self._reference.run(layer, *own, kv, part.plan, up)
            if part.tokens is None:
                return found, kv
            out[part.tokens] = found
        return out, kv

    def _absorbed(
        self, layer: int, q_nope: Tensor, q_rope: Tensor, kv: KVState, plan: Plan, up: UpProjection
    ) -> Tensor:
        """out [T, H, V]"""
        packed = self._pack(layer, up)
        absorbed = self._each_head(q_nope, packed.absorb)
        q = torch.cat((absorbed, q_rope.float()), -1)
        latents = torch.empty((*q.shape[:2], self._spec.kv_rank))
        self._attend(
            self._rows.shape, plan.work, q, *q.stride()[:2], kv[layer][0], latents, plan.put_aside,
            self._spec.scale,
        )  # fmt: skip
        return self._each_head(latents, packed.values).to(q_nope.dtype)

    def _each_head(self, x: Tensor, packed: PackedStack) -> Tensor:
        """x [T, H, K] -> float32 [T, H, N], by the weight of each head."""
        tokens, heads = x.shape[:2]
        by_head = x.transpose(0, 1).reshape(heads * tokens, -1).float()
        ends = torch.arange(1, heads + 1, dtype=torch.int32) * tokens
        found = self._by_head.apply(by_head, packed, RowGroups(ends))
        return found.view(heads, tokens, -1).transpose(0, 1)

    def _pack(self, layer: int, up: UpProjection) -> PackedUp:
        """At a layer's first step; the core keeps what it was made of."""
        kept = self._packed.get(layer)
        if kept is None or kept.up is not up:
            kept = PackedUp(up, self._stack(up.key.transpose(1, 2)), self._stack(up.value))
            self._packed[layer] = kept
        return kept

    def _stack(self, weight: Tensor) -> PackedStack:
        spec = GroupedLinearSpec(*weight.shape, torch.float32)
        return self._by_head.prepack(spec, weight.contiguous(), None)
