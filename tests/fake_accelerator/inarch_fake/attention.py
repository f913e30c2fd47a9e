"""An attention kernel for captured decodes; anything else goes to the reference, on this device."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch, AttentionResult, AttentionSpec, Rotation
from inarch.hal.device import Device
from inarch.hal.kv import NULL_PAGE, KVState, KVStore
from inarch.hal.reference.attention import ReferenceAttention
from inarch_fake.kv import PAGE_TOKENS
from inarch_fake.memory import DEVICE, DeviceTensor, FakeDeviceError


@dataclass(frozen=True)
class DecodePlan:
    """Buffers whose addresses never change, one set for every number of sequences."""

    pages: Tensor  # int64 [S, pages a request may have]
    lengths: Tensor  # int64 [S]
    slots: Tensor  # int64 [S]

    @property
    def addresses(self) -> tuple[int, ...]:
        return tuple(getattr(self, f.name).raw.data_ptr() for f in fields(self))


@dataclass(frozen=True)
class EagerPlan:
    """The reference's plan, and which tokens are padding."""

    plan: Any
    padding: Tensor


class FakeAttention:
    """Keeps its own page table, as a device would, and applies to it what the core says changed."""

    capturable = True

    def __init__(self, spec: AttentionSpec, store: KVStore, device: Device) -> None:
        self._spec, self._store, self._device = spec, store, device
        self._fallback = ReferenceAttention(spec, store, device)
        self._table: np.ndarray | None = None
        self._plans: dict[int, DecodePlan] = {}

    def plan(self, batch: AttentionBatch) -> Any:
        table = self._updated_table(batch)
        if not batch.decode_only:
            is_padding = np.repeat(table[batch.rows, 0] == NULL_PAGE, np.diff(batch.q_indptr))
            padding = self._device.upload(np.flatnonzero(is_padding))
            return EagerPlan(self._fallback.plan(batch), padding)
        count, last = len(batch.rows), batch.kv_lens - 1
        pages = np.where(
            np.arange(table.shape[1]) <= (last // PAGE_TOKENS)[:, None], table[batch.rows], 0
        )
        slots = pages[np.arange(count), last // PAGE_TOKENS] * PAGE_TOKENS + last % PAGE_TOKENS
        if count not in self._plans:
            self._plans[count] = DecodePlan(*(
                torch.empty(shape, dtype=torch.int64, device=DEVICE)
                for shape in (pages.shape, (count,), (count,))
            ))  # fmt: skip
        plan = self._plans[count]
        for buffer, host in ((plan.pages, pages), (plan.lengths, last + 1), (plan.slots, slots)):
            buffer.copy_(self._device.upload(host.astype(np.int64)))
        return plan

    def _updated_table(self, batch: AttentionBatch) -> np.ndarray:
        if batch.page_updates is None:
            self._table = batch.page_table.copy()
        elif self._table is None or self._table.shape != batch.page_table.shape:
            raise FakeDeviceError("page updates were given for a table that was never given whole")
        else:
            rows, columns, pages = batch.page_updates
            self._table[rows, columns] = pages
        for row, length in zip(batch.rows, batch.kv_lens, strict=True):
            used = slice(-(-int(length) // PAGE_TOKENS))
            if not np.array_equal(self._table[row, used], batch.page_table[row, used]):
                raise FakeDeviceError(f"row {row} of the page table changed without a page update")
        return self._table

    def run(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kv: KVState,
        plan: Any,
        *,
        rotation: Rotation | None = None,
        sinks: Tensor | None = None,
        lse: bool = False,
    ) -> AttentionResult:
        if rotation is not None:
            q, k = rotation(q, k)
        if isinstance(plan, EagerPlan):
            result = self._fallback.run(layer, q, k, v, kv, plan.plan, sinks=sinks, lse=lse)
            result.out.index_fill_(0, plan.padding, torch.nan)
            return result
        if not isinstance(q, DeviceTensor):
            raise FakeDeviceError("attention was given a host tensor")
        kv = self._store.write(kv, layer, plan.slots, k, v)
        heads, dim = self._spec.kv_heads, self._spec.key_dim
        place = torch.arange(plan.pages.shape[1] * PAGE_TOKENS, device=DEVICE)
        visible = place < plan.lengths[:, None]  # [S, L]
        if self._spec.window is not None:
            visible = visible & (place >= plan.lengths[:, None] - self._spec.window)
        tokens = kv[layer].index_select(1, plan.pages.flatten())
        tokens = tokens.view(heads, *visible.shape, -1).to(torch.float32)
        tokens = torch.where(visible[None, :, :, None], tokens, 0.0)  # [G, S, L, ...]
        rows = q.float().view(len(q), heads, -1, dim).transpose(0, 1)  # [G, S, H / G, D]
        scores = rows @ tokens[..., :dim].transpose(-1, -2) * self._spec.scale
        scores = torch.where(visible[None, :, None], scores, -torch.inf)
        out = torch.softmax(scores, -1) @ tokens[..., dim:]
        sums = torch.logsumexp(scores, -1).transpose(0, 1).flatten(1) if lse else None
        return AttentionResult(out.transpose(0, 1).flatten(1, 2).to(self._spec.dtype), kv, sums)
