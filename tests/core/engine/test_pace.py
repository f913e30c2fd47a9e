"""The next step is held back while the running one still has time to go, and only then."""

from __future__ import annotations

import numpy as np
import pytest

from inarch.engine.pace import LAUNCHES, LONGEST_S, MARGIN_S, MOST, Pace
from inarch.engine.plan import StepPlan

STEP_S = 0.020
HELD_S = MOST * STEP_S


def plan(decodes: int, prompts: int = 0) -> StepPlan:
    count = decodes + prompts
    nothing = np.zeros(count, dtype=np.int32)
    lengths = np.ones(count, dtype=np.int32)
    return StepPlan([None] * count, nothing, nothing, lengths, lengths > 0, decodes)  # type: ignore


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    """After two decode steps of STEP_S each, the device busy all the while."""
    pace = Pace(clock)
    pace.launched(clock.now, behind=False)
    pace.launched(clock.now, behind=True)
    pace.finished(plan(8))
    clock.now += STEP_S
    pace.finished(plan(8))
    return pace


def test_what_the_host_takes_to_launch_is_allowed_for(pace, clock):
    clock.now += 0.008
    pace.launched(clock.now - 0.008, behind=True)
    clock.now -= 0.008
    assert pace.spare(plan(8)) == pytest.approx(STEP_S - MARGIN_S - LAUNCHES * 0.008)


def test_nothing_is_held_back_before_a_step_was_measured(clock):
    assert Pace(clock).spare(plan(8)) == 0


def test_the_next_step_may_wait_for_a_part_of_the_running_one(pace, clock):
    assert pace.spare(plan(8)) == pytest.approx(HELD_S)
    clock.now += HELD_S - 0.001
    assert pace.spare(plan(8)) == pytest.approx(0.001)
    clock.now += 0.005
    assert pace.spare(plan(8)) == 0


def measure(pace, clock, step, seconds):
    """A step that takes so long, behind another one."""
    pace.launched(clock.now, behind=True)
    clock.now += seconds
    pace.finished(step)


def test_behind_a_step_with_a_prompt_nothing_is_held_back_until_one_was_measured(pace, clock):
    assert pace.spare(plan(8, prompts=1)) == 0
    measure(pace, clock, plan(8, prompts=1), 0.010)
    assert pace.spare(plan(8, prompts=1)) == pytest.approx(MOST * 0.010)


def test_behind_a_long_step_with_prompts_nothing_is_held_back(pace, clock):
    measure(pace, clock, plan(8, prompts=1), LONGEST_S + 0.001)
    assert pace.spare(plan(8, prompts=1)) == 0


@pytest.mark.parametrize("prompts", [0, 2])
def test_a_smaller_step_is_expected_to_take_its_part_and_a_larger_one_no_longer(
    pace, clock, prompts
):
    measure(pace, clock, plan(8 - prompts, prompts), STEP_S)
    assert pace.spare(plan(4 - prompts, prompts)) == pytest.approx(HELD_S / 2)
    assert pace.spare(plan(16 - prompts, prompts)) == pytest.approx(HELD_S)


def test_a_time_in_which_the_device_was_idle_is_not_a_step(pace, clock):
    pace.launched(clock.now, behind=False)
    clock.now += 1.0
    pace.finished(plan(8))
    assert pace.spare(plan(8)) == pytest.approx(HELD_S)


def test_steps_with_prompts_are_not_taken_for_decodes(pace, clock):
    pace.launched(clock.now, behind=True)
    clock.now += 0.3
    pace.finished(plan(8, prompts=1))
    assert pace.spare(plan(8)) == pytest.approx(HELD_S)
