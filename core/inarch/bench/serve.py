"""`inarch bench serve`, in order: build the requests, check the server, warm it up, run, report."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from inarch.bench import BenchError
from inarch.bench.client import Endpoint, Target
from inarch.bench.dataset import build_requests
from inarch.bench.fleet import Load, Pulse, Watch, make_shares, run_load
from inarch.bench.plot import check_plotting, write_plot
from inarch.bench.preflight import check_server, normalize_url
from inarch.bench.record import Record
from inarch.bench.report import Summary, as_json, notes, summarize, write_json
from inarch.bench.table import print_summary
from inarch.bench.workload import BenchRequest, WorkloadConfig, warmup_requests
from inarch.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """One run against one server."""

    url: str = "http://127.0.0.1:30000"
    endpoint: Endpoint = "completions"
    model: str | None = None  # None: the first that the server lists
    api_key: str | None = field(default=None, repr=False)
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    concurrency: int | None = None  # most requests in flight; None: no limit
    warmup: int = 0  # requests before the measurement
    temperature: float = 0.0
    ignore_eos: bool = True
    # Further fields of each request; None drops a field.
    extra_body: dict[str, Any] = field(default_factory=dict)
    processes: int = min(4, os.cpu_count() or 1)
    timeout_s: float = 600.0  # for one request
    output: Path | None = None
    plot: Path | None = None

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("processes", 1), ("warmup", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} ({value}) is less than {least}")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout_s ({self.timeout_s:g}) is not above 0")
        if self.endpoint == "chat" and self.workload.vocab_size is not None:
            raise ConfigError("chat takes text, not token ids: leave out the vocabulary size")

    @property
    def open_loop(self) -> bool:
        """Whether requests arrive at a rate and wait for no other."""
        return self.concurrency is None and not math.isinf(self.workload.request_rate)

    def describe(self) -> str:
        """One line for people."""
        if self.concurrency is not None:
            return f"{self.workload.describe()} · at most {self.concurrency} in flight"
        return self.workload.describe() + ("" if self.open_loop else " · all at once")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave, for programs."""

    summary: Summary
    records: list[Record]
    interrupted: bool


def run_serve(config: ServeConfig, out: Console, progress: Console) -> Outcome:
    """Measure the server and print the summary on `out`, with a bar on `progress` meanwhile.

    Ctrl-C ends the run early and reports what has finished. Raises InarchError when the options,
    the server or the output files are at fault, or when no request succeeded.
    """
    _check_files(config)
    requests = build_requests(config.workload)
    _check_prompts(config, requests)
    target = check_server(make_target(config), config.model, requests[0])
    warmup = warmup_requests(requests, config.warmup, config.workload)
    if warmup and _run("warm-up", target, warmup, config, progress).interrupted:
        load = Load([], interrupted=True)
    else:
        load = _run("requests", target, requests, config, progress)
    summary = summarize(load.records, len(requests))
    _report(config, target, summary, load.records, out)
    if summary.failed and not summary.completed:
        raise BenchError(f"all {summary.failed} requests failed; the first: {summary.first_error}")
    return Outcome(summary, load.records, load.interrupted)


def make_target(config: ServeConfig) -> Target:
    """Where and how the requests of this run are sent, but for the name of the model."""
    body = {
        "temperature": config.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True if config.ignore_eos else None,
        **({} if config.model is None else {"model": config.model}),
        **config.extra_body,
    }
    headers = {} if config.api_key is None else {"Authorization": f"Bearer {config.api_key}"}
    return Target(normalize_url(config.url), config.endpoint, body, headers, config.timeout_s)


def _check_files(config: ServeConfig) -> None:
    """Find out before a long run, rather than after it, that its results cannot be kept."""
    if config.plot is not None:
        check_plotting()
    for path in (config.output, config.plot):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")


def _check_prompts(config: ServeConfig, requests: Sequence[BenchRequest]) -> None:
    unfit = list if config.endpoint == "completions" else tuple
    if any(isinstance(request.prompt, unfit) for request in requests):
        cure = "messages need --endpoint chat" if unfit is list else "chat takes no token ids"
        raise ConfigError(f"{config.workload.dataset} does not fit the endpoint: {cure}")


def _run(
    label: str,
    target: Target,
    requests: Sequence[BenchRequest],
    config: ServeConfig,
    console: Console,
) -> Load:
    shares = make_shares(target, requests, config.concurrency, config.processes)
    with _progress_bar(console, label, len(requests)) as watch:
        return run_load(shares, watch)


@contextmanager
def _progress_bar(console: Console, label: str, total: int) -> Iterator[Watch]:
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[state]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total, state="starting the clients")
        begin, failed = math.nan, 0

        def watch(record: Record | None, pulse: Pulse) -> None:
            nonlocal begin, failed
            begin = time.perf_counter() if math.isnan(begin) else begin  # the clients have started
            failed += record is not None and not record.ok
            speed = pulse.text_events / max(time.perf_counter() - begin, 1e-9)
            state = f"{pulse.in_flight} in flight, {speed:,.0f} events/s"
            state += f", [red]{failed} failed[/red]" if failed else ""
            bar.update(task, advance=int(record is not None), state=state)

        yield watch


def _report(
    config: ServeConfig,
    target: Target,
    summary: Summary,
    records: Sequence[Record],
    out: Console,
) -> None:
    title = f"{target.body['model']} at {target.url} ({target.endpoint})"
    remarks = notes(summary, open_loop=config.open_loop)
    print_summary(out, title, config.describe(), summary, remarks)
    if config.output is not None:
        settings = _settings(config) | {"model": target.body["model"], "url": target.url}
        write_json(config.output, as_json("serve", settings, summary, records))
        out.print(f"figures in {config.output}", style="dim", soft_wrap=True)
    if config.plot is not None and summary.completed:
        subtitle = f"{summary.completed} requests · {config.describe()}"
        write_plot(config.plot, title, subtitle, records)
        out.print(f"plot in {config.plot}", style="dim", soft_wrap=True)


def _settings(config: ServeConfig) -> dict[str, Any]:
    """The configuration as JSON can hold it, without the key."""
    settings = {f.name: getattr(config, f.name) for f in fields(config)}
    del settings["api_key"], settings["workload"]
    for name in ("output", "plot"):
        settings[name] = None if settings[name] is None else str(settings[name])
    return settings | config.workload.as_json()
