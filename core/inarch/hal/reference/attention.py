"""Attention in plain PyTorch, over the pages of any KV store.

New tokens are written through the store; keys are then gathered page by page, group by group (see
grouping.py), and attended (see dense.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from inarch.hal.attention import (
    AttentionBatch,
    AttentionResult,
    AttentionSpec,
    HostPlan,
    Rotation,
)
from inarch.hal.device import Device
from inarch.hal.executor import StepShape
from inarch.hal.kv import KVState, KVStore
from inarch.hal.reference.dense import causal_attention, explicit_attention, masked_attention
from inarch.hal.reference.grouping import HostGroup, group_sequences, query_slots

# Elements of [n, heads, queries, keys] handled at once: bounds the memory of masks and scores.
BLOCK = 1 << 24


@dataclass(frozen=True)
class Group:
    """n sequences of Q query tokens and at most L keys each, on the device. See HostGroup."""

    size: int  # n
    queries: int  # Q
    span: int  # L
    tokens: Tensor | slice  # where its n * Q query tokens are in the batch
    pages: Tensor | None  # [n * pages]; None: the keys are the batch's own K and V
    unwritten: Tensor | None  # places among the gathered tokens that are none of the sequence's
    own: Tensor  # [n, Q]: place in the span of each query's own key
    masking: Literal["none", "causal", "mask"]  # "none": all is seen; "causal": Q = L
    mask: Tensor | None = None  # bool [n, Q, L]; None with "mask": too large, built block by block


@dataclass(frozen=True)
class Plan:
    slots: Tensor  # int64 [T]
    groups: tuple[Group, ...]


class ReferenceAttention:
    """Serves every spec on every torch device."""

    capturable = False  # its groups differ from step to step

    def __init__(self, spec: AttentionSpec, store: KVStore, device: Device) -> None:
        self._spec, self._store, self._device = spec, store, device
        self._page_tokens = store.layout.page_tokens
        dims = spec.key_dim + spec.value_dim
        self._token_bytes = spec.kv_heads * dims * store.spec.dtype.itemsize

    def kept_bytes(self, most: StepShape) -> int:
        return 0

    def plan(self, batch: AttentionBatch) -> HostPlan:
        groups = list(
            group_sequences(
                batch,
                self._page_tokens,
                self._spec.window,
                self._spec.chunk,
                self._token_bytes,
                reuse=self._store.spec.dtype == self._spec.dtype,
            )
        )

        def bind(there: Mapping[str, Tensor]) -> Plan:
            # Groups bring their own arrays over: how many there are differs from step to step.
            return Plan(there["slots"], tuple(self._upload(group) for group in groups))

        return HostPlan({"slots": query_slots(batch, self._page_tokens)}, {}, bind)

    def run(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kv: KVState,
        plan: Plan,
        *,
        rotation: Rotation | None = None,
        sinks: Tensor | None = None,
        lse: bool = False,
    ) -> AttentionResult:
        if rotation is not None:
            q, k = rotation(q, k)
        kv = self._store.write(kv, layer, plan.slots, k, v)
        out = q.new_empty((*q.shape[:2], self._spec.value_dim), dtype=self._spec.dtype)
        sums = q.new_empty(q.shape[:2], dtype=torch.float32) if lse else None
        for group in plan.groups:
            keys, values = self.gather(group, layer, k, v, kv)
            queries = q[group.tokens].reshape(group.size, group.queries, *q.shape[1:])
            attended, group_sums = self.attend(group, queries, keys, values, sinks, lse)
            out[group.tokens] = attended.flatten(0, 1).to(out.dtype)
            if sums is not None and group_sums is not None:
                sums[group.tokens] = group_sums.flatten(0, 1)
        return AttentionResult(out, kv, sums)

    def _upload(self, group: HostGroup) -> Group:
        upload, tokens = self._device.upload, group.tokens
        contiguous = int(tokens[-1] - tokens[0]) + 1 == len(tokens)
        own = group.spans[:, None] - group.queries + np.arange(group.queries)
        uploaded = Group(
            size=len(group.spans),
            queries=group.queries,
            span=group.span,
            tokens=slice(int(tokens[0]), int(tokens[-1]) + 1) if contiguous else upload(tokens),
            pages=None if group.pages is None else upload(group.pages.ravel()),
            unwritten=self._unwritten(group),
            own=upload(own),
            masking=self._masking(group),
            mask=None if group.tree_mask is None else upload(group.tree_mask),
        )
        small = own.size * group.span * self._spec.q_heads <= BLOCK
        if uploaded.masking == "mask" and uploaded.mask is None and small:
            mask = self._visible(uploaded, slice(None), group.span)
            uploaded = dataclasses.replace(uploaded, mask=mask)
        return uploaded

    def _unwritten(self, group: HostGroup) -> Tensor | None:
        if group.pages is None or group.spans.min() == group.span:
            return None
        gathered = np.arange(group.pages.shape[1] * self._page_tokens)
        holes = (gathered >= group.spans[:, None]) & (gathered < group.span)
        return self._device.upload(np.flatnonzero(holes))

    def _masking(self, group: HostGroup) -> Literal["none", "causal", "mask"]:
        limits = (self._spec.window, self._spec.chunk)
        limited = any(limit is not None and limit < group.span for limit in limits)
        if not self._spec.causal:
            return "mask" if limited else "none"
        if group.tree_mask is not None or limited:
            return "mask"
        if group.pages is None:
            return "causal"
        return "none" if group.queries == 1 and group.spans.min() == group.span else "mask"

    def _visible(self, group: Group, rows: slice, keys: int) -> Tensor:
        """bool [n, rows, keys] of a group of chains."""
        own = group.own[:, rows].unsqueeze(-1)
        key = torch.arange(keys, device=own.device)
        if not self._spec.causal:
            return (key - own).abs() < (self._spec.window or keys)
        visible = key <= own
        if self._spec.window is not None:
            visible &= key > own - self._spec.window
        if self._spec.chunk is not None:
            visible &= key >= own // self._spec.chunk * self._spec.chunk
        return visible

    def gather(
        self, group: Group, layer: int, k: Tensor, v: Tensor, kv: KVState
    ) -> tuple[Tensor, Tensor]:
        """K, V [n, L, G, D]: finite wherever they are masked, whatever the pages hold there."""
        if group.pages is None:
            found = k[group.tokens], v[group.tokens]
        else:
            found = self._store.read(kv, layer, group.pages)
        keys, values = (x.to(self._spec.dtype) for x in found)
        if group.unwritten is not None:
            keys.index_fill_(0, group.unwritten, 0)
            values.index_fill_(0, group.unwritten, 0)
        dense = [torch.unflatten(x, 0, (group.size, -1))[:, : group.span] for x in (keys, values)]
        return dense[0], dense[1]

    def attend(
        self, group: Group, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """out [n, Q, H, value_dim] and, if asked for, lse [n, Q, H]."""
        spec = self._spec
        fused = spec.softcap is None and sinks is None and not lse
        if fused and group.masking == "causal":
            return causal_attention(q, k, v, spec.scale), None
        outs, sums = [], []
        for rows, mask in self._blocks(group, q.shape[2]):
            keys = slice(None if mask is None else mask.shape[-1])
            block = (q[:, rows], k[:, keys], v[:, keys], mask, spec.scale)
            if fused:
                outs.append(masked_attention(*block))
            else:
                out, total = explicit_attention(*block, softcap=spec.softcap, sinks=sinks)
                outs.append(out)
                sums.append(total)
        return torch.cat(outs, 1), torch.cat(sums, 1) if lse else None

    def _blocks(self, group: Group, heads: int) -> Iterator[tuple[slice, Tensor | None]]:
        """Rows of queries, each with its mask [n, rows, keys], so that BLOCK is kept."""
        if group.masking == "none" or group.mask is not None:
            yield slice(None), group.mask
            return
        size = max(1, BLOCK // (group.size * group.span * heads))
        for start in range(0, group.queries, size):
            stop = min(start + size, group.queries)
            # No query of the block sees further.
            keys = group.span - group.queries + stop if self._spec.causal else group.span
            yield slice(start, stop), self._visible(group, slice(start, stop), keys)
