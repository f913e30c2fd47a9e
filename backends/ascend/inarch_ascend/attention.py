"""Attention by the fused operator of CANN, over blocks of KV, for every mix of decodes and prompts.

The lengths of the sequences are lists of Python integers: the operator plans its tiles on the host.
A captured step must therefore be told the lengths of each replay, which is the executor's work: they
are in the plan. What lies on the device, the slots and the block table, stays at its addresses.

Source: the documentation of npu_fused_infer_attention_score_v2 that torch-npu's wheel brings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
from inarch.hal.kv import KVState, KVStore
from inarch.hal.reference import attention as reference
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.grouping import query_slots
from inarch_ascend.kv import BLOCK, padded

# sparse_mode: which keys a query sees. Causal masks are aligned to the last query and the last key.
EVERYTHING, CAUSAL, BAND = 0, 3, 4
MASK_SIZE = 2048  # of the compressed mask, whatever the lengths are


@dataclass(frozen=True)
class Plan:
    slots: Tensor  # int32 [T]
    table: Tensor  # int32 [S, pages]
    q_ends: list[int]  # of each sequence: where its query tokens end in the batch
    kv_lens: list[int]

    @property
    def addresses(self) -> tuple[int, ...]:
        """Of all that a captured graph has baked in."""
        return self.slots.data_ptr(), self.table.data_ptr()

    @property
    def host_update(self) -> dict[str, list[int]]:
        """The operator's arguments that a replay must be given anew, by their names."""
        return {"actual_seq_qlen": self.q_ends, "actual_seq_kvlen": self.kv_lens}


class FusedInferAttention:
    """Serves what `kernels.supports_attention` accepts, over the pages of a BlockKVStore.

    The operator has no mask for a tree of drafted tokens: such a step goes to the reference, on the
    same device and pages.
    """

    capturable = True

    def __init__(self, spec: AttentionSpec, store: KVStore, device: Device) -> None:
        self._spec, self._store = spec, store
        self._reference = ReferenceAttention(spec, store, device)
        self._options: dict[str, Any] = {
            "num_query_heads": spec.q_heads,
            "num_key_value_heads": spec.kv_heads,
            "softmax_scale": spec.scale,
            "input_layout": "TND",
            "block_size": BLOCK,
            "sparse_mode": EVERYTHING,
        }
        if spec.causal:
            self._options |= {"sparse_mode": CAUSAL, "atten_mask": _mask(device.torch_device)}
        if spec.window is not None:
            self._options |= {
                "sparse_mode": BAND, "pre_tokens": spec.window - 1, "next_tokens": 0
            }  # fmt: skip

    def kept_bytes(self, most: StepShape) -> int:
        return 0

    def plan(self, batch: AttentionBatch) -> HostPlan:
        if batch.tree_parent is not None and not _chains(batch):
            return self._reference.plan(batch)
        q_ends, kv_lens = batch.q_indptr[1:].tolist(), batch.kv_lens.tolist()
        width = batch.page_table.shape[1]
        if batch.bucket is None:
            width = math.ceil(max(kv_lens) / BLOCK)
        arrays = {
            "slots": query_slots(batch, BLOCK).astype(np.int32),
            "table": batch.page_table[batch.rows, :width].astype(np.int32),
        }

        def bind(there: Mapping[str, Tensor]) -> Plan:
            return Plan(there["slots"], there["table"], q_ends, kv_lens)

        return HostPlan(arrays, {}, bind)

    def run(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kv: KVState,
        plan: Plan | reference.Plan,
        *,
        rotation: Rotation | None = None,
        sinks: Tensor | None = None,
        lse: bool = False,
    ) -> AttentionResult:
        if rotation is not None:
            q, k = rotation(q, k)
        if isinstance(plan, reference.Plan):
            return self._reference.run(layer, q, k, v, kv, plan, sinks=sinks, lse=lse)
        kv = self._store.write(kv, layer, plan.slots, k, v)
        k_blocks, v_blocks = kv[layer]
        out, sums = torch.ops.npu.npu_fused_infer_attention_score_v2(
            padded(q, k_blocks),
            k_blocks.flatten(2),
            v_blocks.flatten(2),
            actual_seq_qlen=plan.q_ends,
            actual_seq_kvlen=plan.kv_lens,
            block_table=plan.table,
            learnable_sink=None if sinks is None else sinks.to(torch.bfloat16),
            return_softmax_lse=lse,
            **self._options,
        )
        return AttentionResult(
            out[..., : self._spec.value_dim], kv, sums.squeeze(-1) if lse else None
        )


def _mask(device: torch.device) -> Tensor:
    """What the causal modes want whatever the lengths are: 1 where a query does not see."""
    ones = torch.ones(MASK_SIZE, MASK_SIZE, dtype=torch.int8)
    return ones.triu(diagonal=1).to(device)


def _chains(batch: AttentionBatch) -> bool:
    """Whether each drafted token follows the one before it."""
    starts = np.repeat(batch.q_indptr[:-1], np.diff(batch.q_indptr))
    return np.array_equal(batch.tree_parent, np.arange(len(starts)) - starts - 1)
