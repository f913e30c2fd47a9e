"""The numbers of /metrics, in Prometheus' format: times measured here, totals asked of the engine."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from inarch.engine.messages import Stats

FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
BETWEEN_TOKENS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600)

# Fields of the engine's statistics: what is now, and what only grows.
GAUGES = {
    "running": ("inarch_running_requests", "Samples that the engine is working on"),
    "waiting": ("inarch_waiting_requests", "Samples that wait for room in the engine"),
    "kv_pages_total": ("inarch_kv_pages_total", "KV pages that there are"),
    "kv_pages_used": ("inarch_kv_pages_used", "KV pages of samples that the engine is working on"),
    "kv_pages_cached": ("inarch_kv_pages_cached", "KV pages of the prefix cache"),
}
COUNTERS = {
    "prompt_tokens": ("inarch_prompt_tokens", "Tokens of prompts"),
    "cached_tokens": ("inarch_cached_tokens", "Tokens of prompts found in the prefix cache"),
    "generated_tokens": ("inarch_generation_tokens", "Tokens generated"),
    "steps": ("inarch_steps", "Forward passes"),
    "retractions": ("inarch_retractions", "Samples set back because KV memory ran short"),
}


class EngineNumbers(Collector):
    """What the engine said of itself when it was last asked; None: it did not answer."""

    stats: Stats | None = None

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "inarch_engine_alive", "1 while the engine answers", value=self.stats is not None
        )
        if self.stats is None:
            return
        for field, (name, text) in GAUGES.items():
            yield GaugeMetricFamily(name, text, value=getattr(self.stats, field))
        for field, (name, text) in COUNTERS.items():
            yield CounterMetricFamily(name, text, value=getattr(self.stats, field))


class Times(Collector):
    """A histogram of seconds, for one thread: an observation takes a tenth of what the locks and the
    search of prometheus_client's own do, and there is one for every token."""

    def __init__(
        self, name: str, text: str, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._bounds = name, text, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += times
        self._sum += seconds * times

    def collect(self) -> Iterable[Metric]:
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        buckets = list(zip(names, map(float, accumulate(self._counts)), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets, self._sum)


class Metrics:
    """One registry a server, so that two servers in one process do not count together."""

    def __init__(self, reference_ops: int = 0) -> None:
        self.last_token_s = float("-inf")  # on time.perf_counter, of whichever request
        registry = self._registry = CollectorRegistry()
        self._engine = EngineNumbers()
        registry.register(self._engine)
        Gauge(
            "inarch_reference_ops",
            "Ops of the model that run on the plain reference: `inarch doctor MODEL` lists them",
            registry=registry,
        ).set(reference_ops)
        self.requests = Counter(
            "inarch_requests",
            "HTTP requests answered; status 499: the client went away first",
            ["endpoint", "status"],
            registry=registry,
        )
        self.first_token = Times(
            "inarch_time_to_first_token_seconds",
            "From the request to the first token of its answer",
            FIRST_TOKEN_S,
            registry,
        )
        self.between_tokens = Times(
            "inarch_inter_token_seconds",
            "Between two tokens of one answer",
            BETWEEN_TOKENS_S,
            registry,
        )
        self.request_seconds = Times(
            "inarch_request_seconds",
            "From the request to the end of its answer",
            REQUEST_S,
            registry,
        )

    def render(self, stats: Stats | None) -> bytes:
        """The text of /metrics; None: the engine does not answer."""
        self._engine.stats = stats
        return generate_latest(self._registry)


class Stopwatch:
    """The times of one HTTP request, from when it was received (on time.perf_counter)."""

    def __init__(self, metrics: Metrics, received_s: float) -> None:
        self._metrics = metrics
        self.received_s = received_s
        self.first_token_s: float | None = None  # when it came
        self._last: dict[int, float] = {}  # of each choice

    def output(self, choice: int, tokens: int) -> None:
        """Note `tokens` new tokens of a choice; they share the time since its last ones."""
        if not tokens:
            return
        now = time.perf_counter()
        if choice in self._last:
            self._metrics.between_tokens.observe((now - self._last[choice]) / tokens, tokens)
        else:
            self._metrics.first_token.observe(now - self.received_s)
            if self.first_token_s is None:
                self.first_token_s = now
        self._last[choice] = self._metrics.last_token_s = now

    def finish(self) -> None:
        if self._last:  # else refused, or gone before its first token: nothing was served
            self._metrics.request_seconds.observe(time.perf_counter() - self.received_s)
