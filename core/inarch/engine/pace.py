"""When to launch the next step: early enough that the device never waits, late enough for newcomers.

A step that is launched while another runs holds nothing that arrives in between, so a request would
wait for the rest of the running step and for a whole further one. Steps of one kind that follow each
other take about the same time; so the next one is held back for a part of it that leaves room for a
host that is late: a device that waits costs everyone, a newcomer that waits only itself.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from inarch.engine.plan import StepPlan

MOST = 0.8  # of a step's time
MARGIN_S = 0.0005  # left at the end, beside the time that it takes to plan and launch
LAUNCHES = 1.5  # of the last launch's time are allowed for the next one
# Behind a longer step with prompts nothing is held back: the next is likely to be full anyway, and
# what is wrongly expected of a long step leaves the device waiting for long.
LONGEST_S = 0.05


@dataclass(frozen=True)
class Measured:
    tokens: int
    seconds: float


class Pace:
    """Measures steps as their results come in. All times in seconds."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self._behind: deque[bool] = deque()  # of launched steps: at once after the one before
        self._done = 0.0  # when the last step's results came
        self._last: dict[bool, Measured] = {}  # step without prompts, and with some
        self._launch = 0.0  # that the host took to plan and launch the last step

    def launched(self, began: float, *, behind: bool) -> None:
        """A step was launched, with whose planning the host had begun at `began`.

        behind: the step before it has not finished, so that the device goes on without a pause.
        """
        self._behind.append(behind)
        self._launch = self.now() - began

    def finished(self, plan: StepPlan) -> None:
        """The results of the oldest launched step came."""
        now = self.now()
        if self._behind.popleft():
            self._last[_has_prompts(plan)] = Measured(plan.num_tokens, now - self._done)
        self._done = now

    def spare(self, running: StepPlan) -> float:
        """How long the step after `running`, which began when the last one finished, may wait."""
        last = self._last.get(_has_prompts(running))
        if last is None:
            return 0.0
        # No promise that more tokens take longer; and half of the tokens take more than half the time.
        expected = last.seconds * min(running.num_tokens / last.tokens, 1.0)
        if _has_prompts(running) and expected > LONGEST_S:
            return 0.0
        held = min(expected - MARGIN_S - LAUNCHES * self._launch, MOST * expected)
        return max(self._done + held - self.now(), 0.0)


def _has_prompts(plan: StepPlan) -> bool:
    return plan.decodes < len(plan.requests)
