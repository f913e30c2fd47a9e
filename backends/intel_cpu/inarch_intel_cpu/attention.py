"""Paged attention: what a step has to do is planned once, in C++, and run for each layer.

The kernels do everything a spec can ask for: see csrc/attention_plan.cpp for what is seen by whom,
csrc/attention.cpp for the arithmetic and csrc/kv_write.cpp for what comes before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from inarch.hal.kv import KVHeads, KVState, KVStore
from inarch_intel_cpu.kv import PageShape
from inarch_intel_cpu.native import Native

# The struct Work of csrc/pages.h, in numbers of 64 bits: how many slots, tokens of a tile; slots' place.
SLOTS, TILE_TOKENS, SLOTS_AT = 3, 4, 7


@dataclass(frozen=True, eq=False)
class Plan:
    work: int  # address of a struct Work
    slots: int  # address in it of int64 [T]
    put_aside: Tensor  # for the parts of tiles that several threads share
    kept: np.ndarray  # what `work` is in


class CpuAttention:
    """Serves what `attending.supports_attention` accepts, over the pages of a CpuKVStore.

    turns: the functions of this backend for the ops `rope` and `qk_norm_rope`.
    """

    capturable = False  # work differs from step to step; nothing would be won

    def __init__(
        self,
        spec: AttentionSpec,
        store: KVStore,
        device: Device,
        *,
        native: Native,
        turns: tuple[Callable[..., Any], ...],
    ) -> None:
        self._spec, self._turns = spec, turns
        self._make, self._attend = native.kernel("plan_attention"), native.kernel("attend")
        self._write = native.kernel("write_kv")
        heads = KVHeads(spec.kv_heads, spec.key_dim, spec.value_dim)
        self._page_tokens = store.layout.page_tokens
        pages = PageShape(heads, self._page_tokens, store.spec.dtype)
        self.shape = pages.array(spec.q_heads, spec.dtype)
        self._slot_floats = spec.q_heads * (pages.value_row + 2)
        self._work_bytes = 1 << 14
        self._put_aside = torch.empty(0)

    def kept_bytes(self, most: StepShape) -> int:
        return 0

    def plan(self, batch: AttentionBatch) -> HostPlan:
        plan = self.work(batch)

        def bind(there: Mapping[str, Tensor]) -> Plan:
            return plan

        return HostPlan({}, {}, bind)

    def work(self, batch: AttentionBatch) -> Plan:
        spec, shared, table = self._spec, batch.shared, batch.page_table
        groups = () if shared is None else (shared.sequences, shared.indptr, shared.tokens)
        arrays = [
            *(_address(x) for x in (batch.q_indptr, batch.kv_lens, batch.rows)),
            table.ctypes.data,
            table.strides[0] // table.itemsize,
            _address(batch.tree_parent),
            *(_address(x) for x in groups or (None, None, None)),
        ]
        needed = np.zeros(1, np.int64)
        while True:
            room = np.empty(self._work_bytes // 8, np.int64)
            self._make(
                len(batch.kv_lens), *arrays, 0 if shared is None else len(shared.tokens),
                spec.window or 0, spec.chunk or 0, int(spec.causal), self._page_tokens,
                spec.q_heads // spec.kv_heads, spec.kv_heads, room.ctypes.data, room.nbytes,
                needed.ctypes.data,
            )  # fmt: skip
            if needed[0] <= room.nbytes:
                break
            self._work_bytes = 2 * int(needed[0])
        floats = int(room[SLOTS] * room[TILE_TOKENS]) * self._slot_floats
        if floats > len(self._put_aside):
            self._put_aside = torch.empty(floats)
        address = room.ctypes.data
        return Plan(address, address + int(room[SLOTS_AT]), self._put_aside, room)

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
        if rotation is not None and rotation.turn not in self._turns:
            q, k = rotation(q, k)
            rotation = None
        q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
        pages = kv[layer]
        turn = (
            (None, None, 0, 0, None, None, 0, 0.0) if rotation is None else turn_arguments(rotation)
        )
        self._write(
            self.shape, len(k), None if rotation is None else q, *q.stride()[:2], k, *k.stride()[:2],
            v, *v.stride()[:2], plan.slots, *pages, *turn,
        )  # fmt: skip
        out = q.new_empty((*q.shape[:2], self._spec.value_dim))
        sums = q.new_empty(q.shape[:2], dtype=torch.float32) if lse else None
        self._attend(
            self.shape, plan.work, q, *q.stride()[:2], *pages, out, sums,
            None if sinks is None else sinks.float().contiguous(), plan.put_aside,
            self._spec.scale, self._spec.softcap or 0.0,
        )  # fmt: skip
        return AttentionResult(out, kv, sums)


def turn_arguments(rotation: Rotation) -> tuple[Any, ...]:
    """What the kernels that rotate take of a rotation, from `positions` on."""
    q_weight, k_weight, eps = rotation.norm or (None, None, 0.0)
    wide = q_weight is not None and q_weight.dtype == torch.float32
    return (
        rotation.positions, rotation.cos_sin, rotation.cos_sin.shape[1], int(rotation.interleaved),
        q_weight, k_weight, int(wide), eps,
    )  # fmt: skip


def _address(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data
