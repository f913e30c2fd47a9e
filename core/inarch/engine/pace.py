"""When to launch the next step: early enough that the device never waits, late enough for newcomers.

A step that is launched while another runs holds nothing that arrives in between, so a request would
wait for the rest of the running step and for a whole further one. Decode steps that follow each other
take about the same time; so the next one is held back for a part of it that leaves room for a host
that is late: a device that waits costs everyone, a newcomer that waits only itself.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from inarch.engine.plan import StepPlan

MOST = 0.5  # of a step's time
MARGIN_S = 0.001  # left at the end, beside the time that it takes to plan and launch
LAUNCHES = 1.5  # of the last launch's time are allowed for the next one
SIMILAR = 0.8  # a batch of at least this part of the former's decodes takes about as long


class Pace:
    """Measures decode steps as their results come in. All times in seconds."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self._behind: deque[bool] = deque()  # of launched steps: at once after the one before
        self._done = 0.0  # when the last step's results came
        self._took = 0.0  # by the last decode step
        self._decodes = 0  # of that step; 0: unknown
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
        if self._behind.popleft() and plan.decodes == len(plan.requests):
            self._took = now - self._done
            self._decodes = plan.decodes
        self._done = now

    def spare(self, running: StepPlan) -> float:
        """How long the step after `running`, which began when the last one finished, may wait."""
        unlike = (
            running.decodes < len(running.requests) or running.decodes < SIMILAR * self._decodes
        )
        if unlike or not self._decodes:
            return 0.0
        held = min(self._took - MARGIN_S - LAUNCHES * self._launch, MOST * self._took)
        return max(self._done + held - self.now(), 0.0)
