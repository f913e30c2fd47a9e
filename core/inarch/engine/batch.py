"""Turn a step plan into the host arrays of one padded batch, and bring arrays to the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inarch.engine.plan import StepPlan
from inarch.engine.table import RequestTable
from inarch.hal.attention import AttentionBatch
from inarch.hal.device import Device
from inarch.hal.executor import StepShape

ALIGNMENT = 16  # bytes; every packed array begins at a multiple of it, as vector loads want
TORCH_DTYPE = {
    np.dtype(np.int32): torch.int32,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float32): torch.float32,
}


@dataclass(frozen=True)
class HostBatch:
    """The arrays of a step, padded to `shape`.

    token_ids [T] int64: known ids, or ~row where the id is the one sampled last for that row and may
    be known to the device only. positions [T], last_token [S]: as in StepInputs.
    """

    shape: StepShape
    token_ids: np.ndarray
    positions: np.ndarray
    last_token: np.ndarray
    attention: AttentionBatch


def step_shape(plan: StepPlan) -> StepShape:
    return StepShape(plan.num_tokens, len(plan.requests), int(plan.lengths.max()))


def build_batch(plan: StepPlan, table: RequestTable, shape: StepShape) -> HostBatch:
    """Lay the plan's sequences out one after the other and pad to `shape`.

    Padding sequences use the null row. They have one token each, the last of them what remains.
    """
    lengths, starts, rows = _padded(plan, table, shape)
    q_indptr = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=q_indptr[1:])
    positions = np.arange(shape.tokens, dtype=np.int64)
    positions += np.repeat(starts - q_indptr[:-1], lengths)
    token_ids = np.zeros(shape.tokens, dtype=np.int64)
    token_ids[: plan.decodes] = ~plan.rows[: plan.decodes]
    for s in range(plan.decodes, len(plan.requests)):
        start, length = int(starts[s]), int(lengths[s])
        at = int(q_indptr[s])
        token_ids[at : at + length] = plan.requests[s].tokens(start, start + length)
    attention = AttentionBatch(
        q_indptr=q_indptr,
        kv_lens=starts + lengths,
        rows=rows,
        page_table=table.pages,
        page_updates=table.take_updates(),
        shared=plan.shared,
    )
    return HostBatch(shape, token_ids, positions, q_indptr[1:].astype(np.int64) - 1, attention)


def _padded(
    plan: StepPlan, table: RequestTable, shape: StepShape
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    extra = shape.seqs - len(plan.requests)
    spare = shape.tokens - plan.num_tokens
    if not extra and not spare:
        return plan.lengths, plan.starts, plan.rows
    if extra < 0 or spare < extra or (spare and not extra):
        raise ValueError(f"bucket {shape} cannot hold {step_shape(plan)} and its padding")
    padding = np.ones(extra, dtype=np.int32)
    padding[-1] = spare - (extra - 1)
    null_rows = np.full(extra, table.null_row, dtype=np.int32)
    return (
        np.concatenate((plan.lengths, padding)),
        np.concatenate((plan.starts, np.zeros(extra, dtype=np.int32))),
        np.concatenate((plan.rows, null_rows)),
    )


def upload(device: Device, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Bring several small 1-D arrays to the device in a single copy."""
    sizes = {name: -(-array.nbytes // ALIGNMENT) * ALIGNMENT for name, array in arrays.items()}
    packed = np.empty(sum(sizes.values()), dtype=np.uint8)
    at = 0
    for name, array in arrays.items():
        packed[at : at + array.nbytes] = array.view(np.uint8)
        at += sizes[name]
    there = device.upload(packed)
    tensors: dict[str, Tensor] = {}
    at = 0
    for name, array in arrays.items():
        tensors[name] = there[at : at + array.nbytes].view(TORCH_DTYPE[array.dtype])
        at += sizes[name]
    return tensors
