"""`inarch bench offline`: the same workloads, given to an engine in this process, without HTTP."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from inarch.bench.dataset import build_requests
from inarch.bench.plot import check_plotting, write_plot
from inarch.bench.record import Record
from inarch.bench.report import Summary, as_json, notes, summarize, write_json
from inarch.bench.table import print_summary
from inarch.bench.workload import BenchRequest, WorkloadConfig, warmup_requests
from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.errors import ConfigError
from inarch.sampling import SamplingParams


def run_offline(
    config: EngineConfig,
    workload: WorkloadConfig,
    *,
    warmup: int,
    output: Path | None,
    plot: Path | None,
    out: Console,
    progress: Console,
) -> Summary:
    """Give all requests to the engine at once and report how it fared. Raises InarchError."""
    if plot is not None:
        check_plotting()
    requests = build_requests(workload)
    with Engine(config) as engine:
        prompts = [tokens_of(engine, request) for request in requests]
        if warmup:
            again = warmup_requests(requests, warmup, workload)
            run(engine, again, [tokens_of(engine, request) for request in again], progress)
        records = run(engine, requests, prompts, progress)
        info = engine.info
    summary = summarize(records, len(requests))
    title = f"{info.name} on {info.device} ({info.backend}, {info.dtype}), offline"
    remarks = notes(summary, open_loop=False)
    print_summary(out, title, workload.describe(), summary, remarks)
    if output is not None:
        settings = workload.as_json() | {"engine": dataclasses.asdict(engine.config)}
        write_json(output, as_json("offline", settings, summary, records))
    if plot is not None:
        write_plot(plot, title, workload.describe(), records)
    return summary


def tokens_of(engine: Engine, request: BenchRequest) -> list[int]:
    """The prompt's token ids: tokenizing is not part of the measurement."""
    if isinstance(request.prompt, str):
        return engine.tokenizer.encode(request.prompt)
    if isinstance(request.prompt, tuple):
        return list(request.prompt)
    text = engine.tokenizer.apply_chat_template(request.prompt)
    return engine.tokenizer.encode(text, add_special_tokens=False)


def run(
    engine: Engine,
    requests: Sequence[BenchRequest],
    prompts: Sequence[Sequence[int]],
    progress: Console,
) -> list[Record]:
    """Generate everything and note when each token came."""
    limit = engine.info.max_request_tokens
    for request, prompt in zip(requests, prompts, strict=True):
        if len(prompt) + request.output_len > limit:
            raise ConfigError(
                f"request {request.index} has {len(prompt)} tokens and asks for "
                f"{request.output_len} more, but the engine holds {limit} tokens a request"
            )
    params = [
        SamplingParams(temperature=0, max_tokens=request.output_len, ignore_eos=True)
        for request in requests
    ]
    times: list[list[float]] = [[] for _ in requests]
    started = time.perf_counter()
    with Progress(console=progress, transient=True) as bar:
        task = bar.add_task("requests", total=len(requests))
        for number, output in engine.stream_batch(prompts, params):
            times[number].append(time.perf_counter() - started)
            if output.finish_reason is not None:
                bar.advance(task)
    return [
        Record(
            index=request.index,
            due_s=0.0,
            sent_s=0.0,
            text_s=tuple(seen),
            input_tokens=len(prompt),
            output_tokens=len(seen),
            wanted_tokens=request.output_len,
        )
        for request, prompt, seen in zip(requests, prompts, times, strict=True)
    ]
