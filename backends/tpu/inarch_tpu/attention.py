"""The attention facet: plans for both implementations, and the choice between them in a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
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
from inarch.hal.kv import NULL_PAGE, KVState
from inarch_tpu import ragged
from inarch_tpu.blocks import cut, tree_of
from inarch_tpu.kv import XlaKVStore, written
from inarch_tpu.mesh import constrained
from inarch_tpu.paged import Blocks, attend
from inarch_tpu.tensor import JaxTensor, value


class Plan(NamedTuple):
    """Arrays of one step: where new tokens go; then for one implementation or the other."""

    slots: Any  # int32 [T]
    blocks: Blocks | None
    ragged: ragged.Lengths | None


class XlaAttention:
    """Attention as a part of an XLA program. pallas: whether the Pallas kernel may serve."""

    capturable = True

    def __init__(
        self, spec: AttentionSpec, store: XlaKVStore, device: Device, *, pallas: bool = False
    ) -> None:
        self._spec, self._store = spec, store
        self._pallas = pallas and bool(ragged.supports(spec, store.mesh.size))

    def kept_bytes(self, most: StepShape) -> int:
        return 0

    def plan(self, batch: AttentionBatch) -> HostPlan:
        table = batch.page_table[batch.rows].astype(np.int32)
        small = table.nbytes <= ragged.TABLE_BYTES
        on_pallas = self._pallas and small and batch.tree_parent is None
        arrays = {"slots": slots_of(batch, self._store.layout.page_tokens)}
        if on_pallas:
            arrays |= ragged.lengths_of(batch, table)._asdict()
        else:
            arrays |= cut(batch, table, causal=self._spec.causal)
            arrays |= {} if batch.tree_parent is None else tree_of(batch, arrays["tokens"])

        def bind(there: Mapping[str, Tensor]) -> Plan:
            def made(kind: Any) -> Any:
                return kind(**{name: there.get(name) for name in kind._fields})

            blocks, lengths = (None, ragged.Lengths) if on_pallas else (Blocks, None)
            return Plan(there["slots"], blocks and made(blocks), lengths and made(lengths))

        return HostPlan(arrays, {}, bind)

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
        mesh = self._store.mesh
        queries, keys, values = (constrained(value(x), mesh, 1) for x in (q, k, v))
        pages = written(kv.layers[layer], value(plan.slots), keys, values, mesh)
        state = kv.with_layer(layer, pages)
        if plan.ragged is not None and not lse:
            lengths = ragged.Lengths(*map(value, plan.ragged))
            out = ragged.attend(self._spec, queries, pages[0], lengths, mesh)
            return AttentionResult(JaxTensor(out), state, None)
        assert plan.blocks is not None, "the Pallas kernel gives no log-sum-exp"
        blocks = Blocks(*(None if x is None else value(x) for x in plan.blocks))
        sink = None if sinks is None else value(sinks)
        heads = self._store.spec.layers[layer]
        out, sums = attend(self._spec, heads, queries, pages, blocks, sink)
        return AttentionResult(JaxTensor(out), state, JaxTensor(sums) if lse else None)


def slots_of(batch: AttentionBatch, page_tokens: int) -> np.ndarray:
    """int32 [T]: where each new token goes; padding goes to the null page."""
    q_lens = np.diff(batch.q_indptr)
    ends = np.repeat(batch.q_indptr[1:], q_lens)
    positions = np.repeat(batch.kv_lens, q_lens) - ends + np.arange(len(ends))
    columns = np.minimum(positions // page_tokens, batch.page_table.shape[1] - 1)
    pages = batch.page_table[np.repeat(batch.rows, q_lens), columns]
    slots: np.ndarray = (pages * page_tokens + positions % page_tokens).astype(np.int32)
    return np.where(pages == NULL_PAGE, positions % page_tokens, slots).astype(np.int32)
