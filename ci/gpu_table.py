"""The benchmark table of a GPU: serves a model of dummy weights and loads it with fixed workloads.

    python ci/gpu_table.py [--rows NAME,NAME] [--seeds N] [--quick] [--out FOLDER] [-- SERVE OPTIONS]

Prints the table last; writes FOLDER/gpu.json after every row, and FOLDER/gpu.png. Beside each figure
stand what other servers reach, the floor that bandwidth and arithmetic set, and the goal: all for one
H200 and the shape of Llama 3.1 8B in bfloat16. Usually run by ci/gpu, which installs what it needs.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from dummy_model import VOCABULARY, write
from gpu_plot import write_plot
from gpu_server import Server
from rich.console import Console

from inarch.bench.lengths import LogNormal, SharedPrefix, Uniform
from inarch.bench.record import Record
from inarch.bench.report import Summary
from inarch.bench.serve import Outcome, ServeConfig, run_serve
from inarch.bench.workload import WorkloadConfig
from inarch.errors import InarchError
from inarch.version import __version__


@dataclasses.dataclass(frozen=True)
class Figure:
    """One number of the table. peers: SGLang 0.5.17 and vLLM 0.26.0, November 2026."""

    name: str
    unit: str
    sglang: str
    vllm: str
    floor: str
    goal: float
    of: Callable[[Summary, Sequence[Record]], float | None]
    less_is_better: bool = True


@dataclasses.dataclass(frozen=True)
class Row:
    """A workload and what is read from it. seconds: about how long it takes."""

    workload: WorkloadConfig
    figures: tuple[Figure, ...]
    seconds: float
    concurrency: int | None = None


def decode_step_ms(summary: Summary, records: Sequence[Record]) -> float | None:
    """Median gap between texts of a request while all requests have begun and none has ended."""
    good = [record for record in records if record.ok]
    first, last = max(r.text_s[0] for r in good), min(r.text_s[-1] for r in good)
    gaps = [b - a for r in good for a, b in pairwise(r.text_s) if a >= first and b <= last]
    return statistics.median(gaps) * 1000 if gaps else None


def output_rate(summary: Summary, records: Sequence[Record]) -> float | None:
    return summary.output_tok_per_s


def load(seed: int, requests: int, inputs: Any, outputs: Any, **more: Any) -> WorkloadConfig:
    """Random ids; every row has a seed of its own, lest one find another's prompts in the cache.

    The second run of all rows takes the seeds SEED_STEP further on, and so forth.
    """
    lengths = {
        name: Uniform(length, length) if isinstance(length, int) else length
        for name, length in (("input_len", inputs), ("output_len", outputs))
    }
    return WorkloadConfig(
        num_requests=requests, vocab_size=VOCABULARY, seed=seed, **lengths, **more
    )


def decode_row(seed: int, batch: int, sglang: str, vllm: str, floor: str, goal: float) -> Row:
    figure = Figure(
        f"decode step at batch {batch}", "ms", sglang, vllm, floor, goal, decode_step_ms
    )
    return Row(load(seed, batch, 1024, 96), (figure,), seconds=3 + batch / 16)


ROWS: Mapping[str, Row] = {
    "latency": Row(
        load(1, 4, 128, 256),
        (
            Figure(
                "one stream, per token", "ms", "4.79", "4.89", "3.5", 4.2,
                lambda s, _: s.tpot_ms and s.tpot_ms.p50,
            ),
        ),
        seconds=8, concurrency=1,
    ),
    "decode-8": decode_row(2, 8, "5.2", "5.2", "3.8", 4.5),
    "decode-64": decode_row(3, 64, "7.7", "7.6", "5.6", 6.5),
    "decode-256": decode_row(4, 256, "19.2", "17.8", "13.3", 15.5),
    "throughput": Row(
        load(5, 512, 1024, 256),
        (
            Figure(
                "512 at once, 1024 in, 256 out", "output tok/s", "4,600-5,400", "5,900-6,200",
                "7,900", 7000, output_rate, less_is_better=False,
            ),
        ),
        seconds=30,
    ),
    "lognormal": Row(
        load(6, 600, LogNormal(220, 1.0, 4, 2048), LogNormal(200, 0.8, 4, 1024)),
        (
            Figure(
                "600 at once, 220 in, 200 out", "output tok/s", "7,400-8,900", "9,000-9,700", "",
                11_000, output_rate, less_is_better=False,
            ),
        ),
        seconds=20,
    ),
    "shared-prefix": Row(
        load(7, 512, 128, 64, shared_prefix=SharedPrefix(16, 2048)),
        (
            Figure(
                "16 x 32 with shared 2048 in, 64 out", "output tok/s", "4,600-5,100",
                "5,100-5,300", "12,800", 9000, output_rate, less_is_better=False,
            ),
        ),
        seconds=12,
    ),
    "long-prefill": Row(
        load(8, 16, 16_384, 16),
        (
            Figure(
                "16 x 16384 in, 16 out", "total tok/s", "33,000", "32,500", "40,000", 35_000,
                lambda s, _: s.total_tok_per_s, less_is_better=False,
            ),
        ),
        seconds=12,
    ),
    "rate": Row(
        load(9, 480, 512, 128, request_rate=16.0),
        (
            Figure(
                "16/s, 512 in, 128 out: TTFT p50", "ms", "24", "38", "", 22,
                lambda s, _: s.ttft_ms and s.ttft_ms.p50,
            ),
            Figure(
                "16/s, 512 in, 128 out: TTFT p99", "ms", "43", "102", "", 40,
                lambda s, _: s.ttft_ms and s.ttft_ms.p99,
            ),
        ),
        seconds=36,
    ),
}  # fmt: skip
COLD = Figure("start to /health, cold", "s", "105", "113", "", 40, lambda *_: None)
WARM = Figure("start to /health, warm caches", "s", "", "", "", 15, lambda *_: None)
# As mixed as what the peers were warmed up with, and no more: what a server meets late, it meets
# within the rows.
WARM_UP = load(0, 64, Uniform(16, 3000), Uniform(16, 47))
SEED_STEP = 100


@dataclasses.dataclass
class Result:
    """What is written and printed. figures: name -> a value a run; failures: row -> why it has none."""

    quick: bool
    versions: Mapping[str, str]
    device: str = "?"
    figures: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    summaries: dict[str, Any] = dataclasses.field(default_factory=dict)
    date: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    )

    def add(self, figure: Figure, value: float | None) -> None:
        if value is not None:
            self.figures.setdefault(figure.name, []).append(round(value, 3))


def quicker(workload: WorkloadConfig) -> WorkloadConfig:
    """An eighth of the requests: to see that it runs, not how fast."""
    return dataclasses.replace(workload, num_requests=max(1, (workload.num_requests or 8) // 8))


def drive(url: str, row: Row, *, run: int, quick: bool, timeout_s: float) -> Outcome:
    """Run a row's workload against the server for the `run`-th time. Raises InarchError."""
    workload = dataclasses.replace(row.workload, seed=row.workload.seed + run * SEED_STEP)
    config = ServeConfig(
        url=url,
        workload=quicker(workload) if quick else workload,
        concurrency=row.concurrency,
        timeout_s=timeout_s,
    )
    return run_serve(config, Console(), Console(stderr=True))


class Table:
    """Runs the rows one after the other, as often as asked; a server that died is started again."""

    def __init__(self, server: Server, result: Result, out: Path, deadline: float) -> None:
        self._server, self._result, self._out, self._deadline = server, result, out, deadline

    def run(self, names: Sequence[str], runs: int) -> None:
        if self._start(COLD):
            self._run("warm-up", Row(WARM_UP, (), seconds=15), 0)
        for run in range(runs):
            for name in names:
                self._run(name, ROWS[name], run)
        self._server.stop()
        if self._deadline - time.monotonic() > 60:
            self._start(WARM)
            self._server.stop()

    def _start(self, figure: Figure) -> bool:
        def start() -> None:
            self._result.add(figure, self._server.start())
            self._result.device = self._server.device

        return self._guarded(figure.name, start)

    def _run(self, name: str, row: Row, run: int) -> None:
        left = self._deadline - time.monotonic()
        if left < row.seconds:
            self._result.failures[name] = f"run {run} was left out: no time was left"
            return
        self._guarded(name, lambda: self._measure(name, row, run, left))

    def _measure(self, name: str, row: Row, run: int, left: float) -> None:
        if not self._server.alive:
            self._server.start()
        print(f"\n==== {name}, run {run}", flush=True)
        outcome = drive(self._server.url, row, run=run, quick=self._result.quick, timeout_s=left)
        summary = dataclasses.asdict(outcome.summary)
        self._result.summaries.setdefault(name, []).append(summary)
        for figure in row.figures:
            self._result.add(figure, figure.of(outcome.summary, outcome.records))

    def _guarded(self, name: str, work: Callable[[], object]) -> bool:
        try:
            work()
        except InarchError as error:
            self._result.failures[name] = str(error)
            print(f"{name}: {error}", flush=True)
        (self._out / "gpu.json").write_text(json.dumps(dataclasses.asdict(self._result), indent=1))
        return name not in self._result.failures


def print_table(result: Result, names: Sequence[str]) -> None:
    """Fixed columns of plain text, so that the end of a log shows it whole."""
    figures = [COLD, WARM, *(figure for name in names for figure in ROWS[name].figures)]
    widths = (36, 12, 12, 12, 7, 7, 15)
    lines = [("", "", "SGLang", "vLLM", "floor", "goal", "Inarch")]
    for figure in figures:
        values = result.figures.get(figure.name, [])
        worst = max(values, default=0) if figure.less_is_better else min(values, default=0)
        reached = "*" if values and (worst <= figure.goal) == figure.less_is_better else ""
        lines.append(
            (figure.name, figure.unit, figure.sglang, figure.vllm, figure.floor,
             f"{figure.goal:,g}", shown(values) + reached)
        )  # fmt: skip
    print(f"\nInarch {__version__} on {result.device}, {result.date}")
    print("others, floor and goal: one H200; * reached in every run" + "; QUICK" * result.quick)
    for first, *others in lines:
        cells = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        print(first.ljust(widths[0]) + "".join(cells))
    for name, why in result.failures.items():
        print(f"{name}: {why.splitlines()[0][:150]}")


def shown(values: Sequence[float]) -> str:
    """The one value, or the least and the greatest; few digits."""
    ends = (min(values), max(values)) if values else ()
    texts = [f"{value:,.2f}" if value < 100 else f"{value:,.0f}" for value in ends]
    return "-".join(dict.fromkeys(texts)) or "-"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", help=f"some of {','.join(ROWS)}, separated by commas; all by default"
    )
    parser.add_argument(
        "--seeds", type=int, default=2, help="runs of every row, each with another seed"
    )
    parser.add_argument("--quick", action="store_true", help="an eighth of the requests")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for gpu.json and gpu.png")
    parser.add_argument("--minutes", type=float, default=8, help="begin no row after this time")
    parser.add_argument("--model", type=Path, help="another folder than that of the dummy model")
    parser.add_argument("serve", nargs="*", help="options of `inarch serve`, after --")
    parsed = parser.parse_args(arguments)
    parsed.rows = parsed.rows.split(",") if parsed.rows else list(ROWS)
    unknown = sorted(set(parsed.rows) - set(ROWS))
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return parsed


def main() -> int:
    arguments = parse()
    deadline = time.monotonic() + arguments.minutes * 60
    arguments.out.mkdir(parents=True, exist_ok=True)
    versions = {name: metadata.version(name) for name in ("inarch", "torch", "transformers")}
    versions["python"] = platform.python_version()
    result = Result(arguments.quick, versions)
    with tempfile.TemporaryDirectory() as work:
        model = arguments.model or Path(work) / "llama-8b-shape"
        if arguments.model is None:
            write(model)
        options = ["--load-format", "dummy", *arguments.serve]
        cache, log = Path(work) / "cache", arguments.out / "server.log"
        with Server(model, options, cache, log) as server:
            Table(server, result, arguments.out, deadline).run(arguments.rows, arguments.seeds)
    if result.figures:
        write_plot(arguments.out / "gpu.png", result, ROWS)
    print_table(result, arguments.rows)
    return int(bool(result.failures))


if __name__ == "__main__":
    sys.exit(main())
