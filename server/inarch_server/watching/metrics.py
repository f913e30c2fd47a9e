"""The numbers of /metrics: times measured here, totals asked of the engine.

A number that SGLang has too goes by SGLang's name, so that its dashboards go on working; the others
begin with `inarch:`. All carry the label model_name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from inarch_server.watching.rates import Rates
from inarch_server.watching.tally import Tally

if TYPE_CHECKING:
    from inarch.engine.messages import ModelInfo, Stats

# SGLang's buckets, with finer ones below: a small model's first token takes 10 ms.
LATENCY_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20,
             40, 60, 80, 100, 200, 400, 600, 1200, 1800, 2400)  # fmt: skip
BETWEEN_TOKENS_S = (0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04,
                    0.06, 0.08, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8)  # fmt: skip
QUEUE_S = (0.001, 0.01, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 10, 15, 20, 30, 60, 100, 200, 300, 600, 1200,
           3000)  # fmt: skip
TOKENS = (1, 10, 30, 100, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 7000, 10000, 15000, 20000,
          30000, 66000, 132000, 300000, 1100000)  # fmt: skip

HISTOGRAMS = {
    "sglang:time_to_first_token_seconds": (
        "From the request to the first token of each choice",
        LATENCY_S,
    ),
    "sglang:inter_token_latency_seconds": (
        "Between two tokens of one choice; those that come together share the time",
        BETWEEN_TOKENS_S,
    ),
    "sglang:e2e_request_latency_seconds": (
        "From the request to the last token of each choice",
        LATENCY_S,
    ),
    "sglang:queue_time_seconds": ("Wait in the engine until a choice was begun", QUEUE_S),
    "sglang:prompt_tokens_histogram": ("Tokens of the prompt of each finished choice", TOKENS),
    "sglang:generation_tokens_histogram": ("Tokens of each finished choice", TOKENS),
}
COUNTERS = {
    "sglang:num_requests_total": "Choices that were finished",
    "sglang:num_aborted_requests_total": "Choices that ended unfinished: client gone, or an error",
    "sglang:num_so_requests_total": "Choices that were finished, held to a grammar",
}
HTTP = {
    "sglang:http_requests_total": ("HTTP requests", ("endpoint", "method")),
    "sglang:http_responses_total": (
        "HTTP requests answered; status 499: the client went away first",
        ("endpoint", "method", "status_code"),
    ),
}


class Times:
    """A histogram for one thread, without the locks and the search of prometheus_client's own.

    Whoever has an observation for every token adds to `values` itself, as `observe` does.
    """

    def __init__(self, name: str, bounds: Sequence[float], tally: Tally) -> None:
        self.bounds = tuple(map(float, bounds))
        self.values = tally.of(name, len(bounds) + 2)  # observations by bound, +Inf, their sum

    def observe(self, value: float) -> None:
        self.values[bisect_left(self.bounds, value)] += 1
        self.values[-1] += value


class Metrics:
    """One a process; `folder` is shared by the processes of one server (see tally.py)."""

    def __init__(self, info: ModelInfo | None = None, folder: Path | None = None) -> None:
        self.last_token_s = float("-inf")  # on time.perf_counter, of whichever request
        self.rates = Rates()
        self._info, self._tally = info, Tally(folder)
        times = [Times(name, bounds, self._tally) for name, (_, bounds) in HISTOGRAMS.items()]
        (self.first_token, self.between_tokens, self.request_seconds,
         self.queue_seconds, self._prompts, self._answers) = times  # fmt: skip
        self._finished, self._aborted, self._constrained = map(self._tally.of, COUNTERS)

    def request(self, endpoint: str, method: str) -> None:
        self._tally.of(f"sglang:http_requests_total|{endpoint}|{method}")[0] += 1

    def response(self, endpoint: str, method: str, status: int) -> None:
        self._tally.of(f"sglang:http_responses_total|{endpoint}|{method}|{status}")[0] += 1

    def finished(self, seconds: float, prompt: int, completion: int, *, constrained: bool) -> None:
        """A choice was finished: seconds since its request, tokens of prompt and answer."""
        self.request_seconds.observe(seconds)
        self._prompts.observe(prompt)
        self._answers.observe(completion)
        self._finished[0] += 1
        if constrained:
            self._constrained[0] += 1

    def aborted(self, choices: int) -> None:
        self._aborted[0] += choices

    def render(self, stats: Stats | None) -> bytes:
        """The text of /metrics; None: the engine does not answer."""
        registry = CollectorRegistry()
        registry.register(Exposition(self._info, stats, self.rates, self._tally.total()))
        return generate_latest(registry)


class Exposition(Collector):
    """All numbers of the server at one moment, as Prometheus takes them."""

    def __init__(
        self,
        info: ModelInfo | None,
        stats: Stats | None,
        rates: Rates,
        total: dict[str, list[float]],
    ) -> None:
        self._info, self._stats, self._rates, self._total = info, stats, rates, total
        self._labels = {"model_name": info.name if info is not None else ""}

    def collect(self) -> Iterator[Metric]:
        yield self._gauge("inarch:engine_alive", "1: the engine answers", self._stats is not None)
        if self._stats is not None:
            yield from self._engine_gauges(self._stats)
            yield from self._engine_counters(self._stats)
            if self._stats.state_slots_total:
                yield from self._state_gauges(self._stats)
        if self._info is not None:
            yield from self._facts(self._info)
        for name, text in COUNTERS.items():
            yield self._counter(name, text, self._total[name][0])
        for name, (text, labels) in HTTP.items():
            yield self._labelled(name, text, labels)
        for name, (text, bounds) in HISTOGRAMS.items():
            yield self._histogram(name, text, bounds)

    def _facts(self, info: ModelInfo) -> Iterator[Metric]:
        yield self._gauge(
            "sglang:max_total_num_tokens", "Tokens that the KV cache can hold", info.kv_tokens
        )
        yield self._gauge(
            "inarch:reference_ops",
            "Ops of the model that run on the plain reference: `inarch doctor MODEL` lists them",
            len(info.reference_ops),
        )
        config = GaugeMetricFamily(
            "sglang:cache_config_info", "KV cache: 1", labels=("page_size", "num_pages")
        )
        pages = info.kv_tokens // info.page_tokens
        labels = {"page_size": str(info.page_tokens), "num_pages": str(pages)} | self._labels
        config.add_sample("sglang:cache_config_info", labels, 1.0)
        yield config

    def _engine_gauges(self, now: Stats) -> Iterator[Metric]:
        rows = (
            ("sglang:num_running_reqs", "Samples that the engine is working on", now.running),
            ("sglang:num_queue_reqs", "Samples that wait for room in the engine", now.waiting),
            ("sglang:num_used_tokens", "KV cache of samples that the engine is working on",
             now.kv_pages_used * now.page_tokens),
            ("sglang:token_usage", "The same as a share of all KV memory",
             now.kv_pages_used / max(now.kv_pages_total, 1)),
            ("sglang:gen_throughput", "Tokens generated per second, of late",
             self._rates.generated_per_s),
            ("sglang:cache_hit_rate", "Share of prompt tokens found in the prefix cache, of late",
             self._rates.cache_hit_rate),
            ("inarch:paused", "1: told to compute nothing for now", now.paused),
            ("inarch:kv_pages_total", "KV pages that there are", now.kv_pages_total),
            ("inarch:kv_pages_used", "KV pages of samples that run", now.kv_pages_used),
            ("inarch:kv_pages_cached", "KV pages of the prefix cache", now.kv_pages_cached),
        )  # fmt: skip
        for row in rows:
            yield self._gauge(*row)

    def _state_gauges(self, now: Stats) -> Iterator[Metric]:
        rows = (
            ("sglang:mamba_usage", "Share of the slots of recurrent states that samples hold",
             now.state_slots_used / now.state_slots_total),
            ("inarch:state_slots_total", "Slots of recurrent states", now.state_slots_total),
            ("inarch:state_slots_used", "Slots of samples that run", now.state_slots_used),
            ("inarch:state_checkpoints", "Slots of the prefix cache", now.state_checkpoints),
        )  # fmt: skip
        for row in rows:
            yield self._gauge(*row)

    def _engine_counters(self, now: Stats) -> Iterator[Metric]:
        rows = (
            ("sglang:prompt_tokens_total", "Tokens of prompts", now.prompt_tokens),
            ("sglang:generation_tokens_total", "Tokens generated", now.generated_tokens),
            ("sglang:num_retracted_requests_total",
             "Samples set back because KV memory ran short", now.retractions),
            ("inarch:steps_total", "Forward passes", now.steps),
        )  # fmt: skip
        for row in rows:
            yield self._counter(*row)
        cached = CounterMetricFamily(
            "sglang:cached_tokens", "Tokens of prompts found in the prefix cache"
        )
        labels = {"cache_source": "device"} | self._labels
        cached.add_sample("sglang:cached_tokens_total", labels, now.cached_tokens)
        yield cached

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text)
        family.add_sample(name, self._labels, float(value))
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(name, text)
        family.add_sample(name, self._labels, value)
        return family

    def _labelled(self, name: str, text: str, labels: Sequence[str]) -> Metric:
        family = CounterMetricFamily(name, text)
        for key, (value, *_) in self._total.items():
            kind, *values = key.split("|")
            if kind == name:
                family.add_sample(
                    name, dict(zip(labels, values, strict=True)) | self._labels, value
                )
        return family

    def _histogram(self, name: str, text: str, bounds: Sequence[float]) -> Metric:
        *counts, total = self._total[name]
        names = [*map(floatToGoString, bounds), "+Inf"]
        family = HistogramMetricFamily(name, text, labels=tuple(self._labels))
        buckets = list(zip(names, accumulate(counts), strict=True))
        family.add_metric(list(self._labels.values()), buckets, total)
        return family
