"""What is measured of one request on its way: where its time goes, and how its choices end."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inarch.engine.outputs import RequestOutput
    from inarch_server.watching.metrics import Metrics


class Stopwatch:
    """Begun when the request was received. All times are on time.perf_counter."""

    def __init__(self, metrics: Metrics, received_s: float) -> None:
        self._metrics = metrics
        self._bounds, self._between = metrics.between_tokens.bounds, metrics.between_tokens.values
        self.received_s = received_s
        self.sent_s: float | None = None  # when it went to the engine
        self.queued_s: float | None = None  # in the engine, until its first choice was begun
        self.first_token_s: float | None = None  # when it came
        self.last_token_s: float | None = None
        self.finish_reasons: dict[int, str] = {}  # by choice
        self._last: dict[int, float] = {}  # when the last tokens of each choice came

    def send(self) -> None:
        self.sent_s = time.perf_counter()

    def output(self, choice: int, tokens: int) -> None:
        """Note `tokens` new tokens of a choice; they share the time since its last ones."""
        if not tokens:
            return
        now = time.perf_counter()
        try:
            gap = now - self._last[choice]
        except KeyError:
            self._metrics.first_token.observe(now - self.received_s)
            if self.first_token_s is None:
                self.first_token_s = now
        else:
            self._between[bisect_left(self._bounds, gap / tokens)] += tokens
            self._between[-1] += gap
        self._last[choice] = self._metrics.last_token_s = now

    def begun(self, output: RequestOutput) -> None:
        """Note the first output of a choice."""
        self._metrics.queue_seconds.observe(output.queued_s)
        if self.queued_s is None:
            self.queued_s = output.queued_s

    def finished(self, choice: int, output: RequestOutput, *, constrained: bool) -> None:
        """Note the last output of a choice."""
        self.finish_reasons[choice] = str(output.finish_reason)
        self._metrics.last_token_s = now = time.perf_counter()
        self._metrics.finished(
            now - self.received_s,
            output.prompt_tokens,
            output.completion_tokens,
            constrained=constrained,
        )

    def stop(self, unfinished: int) -> None:
        """The request is over, and so many of its choices have not come to their end."""
        self.last_token_s = max(self._last.values(), default=None)
        if unfinished:
            self._metrics.aborted(unfinished)
