"""An attention kernel for captured steps; any other goes to the reference, on this device."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

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
from inarch.hal.kv import NULL_PAGE, KVState, KVStore
from inarch.hal.reference.attention import ReferenceAttention
from inarch_fake.kv import PAGE_TOKENS
from inarch_fake.memory import DEVICE, DeviceTensor, FakeDeviceError


@dataclass(frozen=True)
class TokenPlan:
    """Every query token as a decode of its own, in buffers that an executor keeps where they are."""

    pages: Tensor  # int64 [T, pages a request may have]
    lengths: Tensor  # int64 [T]: the tokens that it sees
    slots: Tensor  # int64 [T]

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

    def kept_bytes(self, most: StepShape) -> int:
        return 0

    def plan(self, batch: AttentionBatch) -> HostPlan:
        table = self._updated_table(batch)
        q_lens = np.diff(batch.q_indptr)
        if batch.bucket is None:
            is_padding = np.repeat(table[batch.rows, 0] == NULL_PAGE, q_lens)
            padding = {"padding": np.flatnonzero(is_padding)}
            plan = self._fallback.plan(batch)
            return HostPlan(
                {**plan.arrays, **padding},
                plan.passing,
                lambda there: EagerPlan(plan.bind(there), there["padding"]),
            )
        rows = np.repeat(batch.rows, q_lens)
        ends = np.repeat(batch.kv_lens - batch.q_indptr[1:], q_lens)
        last = ends + np.arange(len(rows))  # the position of each token, the last that it sees
        needed = np.arange(table.shape[1]) <= (last // PAGE_TOKENS)[:, None]
        pages = np.where(needed, table[rows], NULL_PAGE).astype(np.int64)
        slots = pages[np.arange(len(rows)), last // PAGE_TOKENS] * PAGE_TOKENS + last % PAGE_TOKENS
        arrays = {"pages": pages, "lengths": (last + 1).astype(np.int64), "slots": slots}
        return HostPlan(arrays, {}, lambda there: TokenPlan(*(there[name] for name in arrays)))

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
