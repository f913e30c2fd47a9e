"""How a step's runs become groups on the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from inarch.errors import UnsupportedError
from inarch.hal.attention import AttentionBatch
from inarch.hal.executor import StepShape
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.state import (
    HybridState,
    StateBatch,
    StatePlan,
    StateSpec,
    StateTensor,
    allocate_states,
    plan_states,
)


def batch(lengths: list[int], waves: list[int]) -> StateBatch:
    """Run i reads slot 10 + i and writes slot 20 + i."""
    runs = np.arange(len(lengths), dtype=np.int32)
    indptr = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return StateBatch(indptr, 10 + runs, 20 + runs, np.array(waves, np.int32))


def step(
    runs: StateBatch | None, q_indptr: np.ndarray, bucket: StepShape | None = None
) -> AttentionBatch:
    zeros = np.zeros(len(q_indptr) - 1, np.int32)
    return AttentionBatch(q_indptr, zeros, zeros, zeros[:, None], states=runs, bucket=bucket)


def planned(runs: StateBatch, q_indptr: list[int]) -> StatePlan:
    found = plan_states(step(runs, np.array(q_indptr, np.int32))).on(ReferenceDevice())
    assert isinstance(found, StatePlan)
    return found


def test_runs_of_one_wave_and_length_are_one_group_and_waves_are_in_order() -> None:
    plan = planned(batch([2, 1, 3, 2, 1], [0, 1, 0, 0, 1]), [0, 3, 9])
    x = torch.arange(9)
    found = [
        (group.take(x).tolist(), group.read.tolist(), group.write.tolist()) for group in plan.groups
    ]
    assert found == [
        ([[0, 1], [6, 7]], [10, 13], [20, 23]),
        ([[3, 4, 5]], [12], [22]),
        ([[2], [8]], [11, 14], [21, 24]),
    ]
    assert plan.addresses is None


def test_decodes_are_one_group_whose_arrays_alone_differ_from_step_to_step() -> None:
    runs = batch([1, 1, 1], [0, 0, 0])
    host = plan_states(step(runs, np.arange(4, dtype=np.int32)))
    assert {name: array.shape for name, array in host.arrays.items()} == {
        "read": (3,),
        "write": (3,),
    }
    assert not host.passing
    (group,) = planned(runs, [0, 1, 2, 3]).groups
    assert group.take(torch.arange(3)).tolist() == [[0], [1], [2]]


def test_what_a_captured_shape_brings_depends_on_the_shape_alone() -> None:
    """A bucket for prompts may hold nothing but decodes and padding."""
    shape = StepShape(4, 4, 4, captured=True)
    host = plan_states(step(None, np.arange(5, dtype=np.int32), shape))
    assert not host.arrays
    assert host.passing


def test_a_tree_of_drafts_is_refused_with_the_reason() -> None:
    drafts = replace(step(None, np.array([0, 3], np.int32)), tree_parent=np.array([-1, 0, 0]))
    with pytest.raises(UnsupportedError, match="recurrent states: a state that has seen"):
        plan_states(drafts)


def test_states_lie_beside_the_pages_and_stay_the_same_object_where_nothing_moved() -> None:
    spec = StateSpec(((StateTensor((2, 3), torch.float32), StateTensor((4,), torch.float16)),))
    assert spec.slot_bytes == 2 * 3 * 4 + 4 * 2
    state = allocate_states("pages", spec, 5, torch.device("cpu"))
    assert isinstance(state, HybridState)
    assert [tuple(tensor.shape) for tensor in state.mixers[0]] == [(5, 2, 3), (5, 4)]
    assert state.with_pages(state.pages) is state
    assert state.with_mixer(0, state.mixers[0]) is state
    other = state.with_mixer(0, (state.mixers[0][0].clone(), state.mixers[0][1]))
    assert other is not state
    assert other.pages == "pages"
    assert allocate_states("pages", StateSpec(), 5, torch.device("cpu")) == "pages"
