"""Turn a step plan into the host arrays of one padded batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from inarch.engine.plan import Pooled, Scored, StepPlan
from inarch.engine.states import StateRuns
from inarch.engine.table import RequestTable
from inarch.hal.attention import AttentionBatch
from inarch.hal.executor import StepShape
from inarch.hal.state import NULL_SLOT, StateBatch


@dataclass(frozen=True)
class HostBatch:
    """The arrays of a step, padded to `shape`.

    inputs: token_ids [T], positions [T] and last_token [S] of StepInputs, all int64. A token id is
    known, or ~row where it is the one sampled last for that row and may be known to the device only.
    """

    shape: StepShape
    inputs: Mapping[str, np.ndarray]
    attention: AttentionBatch


def step_shape(plan: StepPlan) -> StepShape:
    return StepShape(plan.num_tokens, len(plan.requests), int(plan.lengths.max()))


def nothing() -> StepPlan:
    """The plan of no request: padded to a shape, it is a step in the null page."""
    none = np.empty(0, dtype=np.int32)
    return StepPlan([], none, none, none, np.empty(0, dtype=bool), decodes=0)


def build_batch(plan: StepPlan, table: RequestTable, shape: StepShape) -> HostBatch:
    """Lay the plan's sequences out one after the other and pad to `shape`.

    Padding sequences use the null row: see AttentionBatch.
    """
    lengths, starts, rows = _padded(plan, table, shape)
    q_indptr = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=q_indptr[1:])
    positions = np.arange(shape.tokens, dtype=np.int64)
    positions += np.repeat(starts - q_indptr[:-1], lengths)
    if table.shifts is not None:
        positions += np.repeat(table.shifts[rows], lengths)
    positions[plan.num_tokens :] = 0  # padding may be longer than a context
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
        bucket=shape if shape.captured else None,
        states=None if plan.states is None else _states(plan.states, plan, lengths),
    )
    last_token = q_indptr[1:].astype(np.int64) - 1
    inputs = {"token_ids": token_ids, "positions": positions, "last_token": last_token}
    return HostBatch(shape, inputs, attention)


def _states(runs: StateRuns, plan: StepPlan, lengths: np.ndarray) -> StateBatch:
    """The runs of a plan, and one of each padding sequence in the null slot."""
    padding = lengths[len(plan.requests) :]
    null = np.full(len(padding), NULL_SLOT, dtype=np.int32)
    indptr = np.zeros(len(runs.lengths) + len(padding) + 1, dtype=np.int32)
    np.cumsum(np.concatenate((runs.lengths, padding)), out=indptr[1:])
    parts = (np.concatenate((part, null)) for part in (runs.read, runs.write, runs.wave))
    return StateBatch(indptr, *parts)


def places(spans: Iterable[Scored | Pooled], plan: StepPlan, batch: HostBatch) -> np.ndarray:
    """Where in the batch the positions of spans are, int64."""
    begins = batch.attention.q_indptr - np.append(plan.starts, 0)
    found = [np.arange(span.start, span.end) + begins[span.sequence] for span in spans]
    return np.concatenate([np.empty(0, dtype=np.int64), *found])


def _padded(
    plan: StepPlan, table: RequestTable, shape: StepShape
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    extra = shape.seqs - len(plan.requests)
    spare = shape.tokens - plan.num_tokens
    if not extra and not spare:
        return plan.lengths, plan.starts, plan.rows
    if extra < 0 or spare < 0 or (spare and not extra):
        raise ValueError(f"bucket {shape} cannot hold {step_shape(plan)} and its padding")
    padding = np.zeros(extra, dtype=np.int32)
    padding[:spare] = 1
    padding[-1] += max(spare - extra, 0)
    null_rows = np.full(extra, table.null_row, dtype=np.int32)
    return (
        np.concatenate((plan.lengths, padding)),
        np.concatenate((plan.starts, np.zeros(extra, dtype=np.int32))),
        np.concatenate((plan.rows, null_rows)),
    )
