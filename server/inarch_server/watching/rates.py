"""What the engine does per second: from its totals, whenever somebody asks for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inarch.engine.messages import Stats

WINDOW_S = 2.0  # least time that a rate is taken over, once there is so much history


class Rates:
    """Rates since the answer that is at least WINDOW_S old, or since the oldest there is."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seen: deque[tuple[float, Stats]] = deque()
        self.generated_per_s = 0.0
        self.prompt_per_s = 0.0
        self.cache_hit_rate = 0.0  # of the prompts in the window; the last one's if it has none

    def add(self, stats: Stats) -> None:
        """Take what the engine answered just now. An engine that was restarted begins anew."""
        now = self._now()
        if self._seen and stats.steps < self._seen[-1][1].steps:
            self._seen.clear()
        self._seen.append((now, stats))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        then, before = self._seen[0]
        if now <= then:
            return
        self.generated_per_s = (stats.generated_tokens - before.generated_tokens) / (now - then)
        prompt = stats.prompt_tokens - before.prompt_tokens
        self.prompt_per_s = prompt / (now - then)
        if prompt:
            self.cache_hit_rate = (stats.cached_tokens - before.cached_tokens) / prompt
