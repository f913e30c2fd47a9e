"""What a streamed token costs the processes around the device, with a backend that computes nothing.

    python ci/bench_frontend.py [--json FILE]

Serves over real HTTP and reads processor time, not wall time, so that a busy neighbour counts for
little; the clients are other processes and are not counted. Three loads:

    one by one  steps so slow that every token is an event of its own: what an event costs
    flat out    steps so fast that the front end is the bottleneck: what it can do
    arrivals    600 prompts of 1,024 token ids at once, while 64 others stream: how long those wait
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import dummy_model
from gpu_server import Server
from null_plugin import VOCABULARY

from inarch.bench.client import Target
from inarch.bench.fleet import make_shares, run_load
from inarch.bench.record import Record
from inarch.bench.report import percentile
from inarch.bench.workload import BenchRequest, prompt_maker, stream
from inarch.hal.reference.host import cpu_name

STREAMS, BYSTANDERS, ARRIVALS = 512, 64, 600
OPTIONS = ("--backend", "null", "--served-model-name", "null", "--log-level", "warning",
           "--max-running-requests", "1024", "--load-format", "dummy")  # fmt: skip
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 64,
         "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
         "head_dim": 32, "torch_dtype": "float32"}  # fmt: skip


@dataclass(frozen=True)
class Cpu:
    """Processor seconds that a server's engine and its one front end have used."""

    frontend: float
    frontend_thread: float  # of the main thread alone: it cannot have more than one core
    engine: float

    @staticmethod
    def of(pid: int) -> Cpu:
        front_end, engine = (
            child(pid, "inarch_server.process.worker"),
            child(pid, "inarch.engine.process"),
        )
        return Cpu(_seconds(f"/proc/{front_end}"), _seconds(f"/proc/{front_end}/task/{front_end}"),
                   _seconds(f"/proc/{engine}"))  # fmt: skip

    def since(self, before: Cpu) -> Cpu:
        return Cpu(
            self.frontend - before.frontend,
            self.frontend_thread - before.frontend_thread,
            self.engine - before.engine,
        )


def child(pid: int, module: str) -> int:
    """The process of a server that runs a module."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = [
        int(one)
        for one in listed
        if module.encode() in Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0")
    ]
    return found


def _seconds(folder: str) -> float:
    fields = Path(folder, "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(folder: Path, step_ms: float) -> Iterator[Server]:
    """A server on the null backend, whose steps last `step_ms`."""
    os.environ["INARCH_NULL_STEP_MS"] = str(step_ms)
    with Server(folder / "model", OPTIONS, folder / "cache", folder / "server.log") as server:
        server.start()
        yield server


def install(folder: Path) -> None:
    """Make the null backend a plugin of every process that starts from here, and write a model."""
    metadata = folder / "installed" / "inarch_null-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: inarch-null\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[inarch]\nnull = null_plugin\n")
    before = [path for path in (os.environ.get("PYTHONPATH"),) if path]
    paths = [str(metadata.parent), str(Path(__file__).parent), *before]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    dummy_model.write(folder / "model", **SMALL)


def requests(count: int, tokens_in: int, tokens_out: int, offset_s: float) -> list[BenchRequest]:
    rng, prompt = stream(count, "frontend"), prompt_maker(VOCABULARY)
    return [
        BenchRequest(i, prompt(rng, tokens_in), tokens_in, tokens_out, offset_s)
        for i in range(count)
    ]


def load(server: Server, *asked: Sequence[BenchRequest]) -> tuple[list[Record], Cpu]:
    """Send requests, each group from a process of its own, and count what they cost the server."""
    body = {"model": "null", "temperature": 0, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}}  # fmt: skip
    target = Target(server.url, "completions", body, {}, 300.0)
    before = Cpu.of(server.pid)
    shares = [share for group in asked for share in make_shares(target, group, None, 1)]
    records = run_load(shares, lambda *_: None).records
    for record in records:
        assert record.ok, record.error
        assert record.output_tokens == record.wanted_tokens
    return records, Cpu.of(server.pid).since(before)


def streaming(server: Server, tokens_out: int) -> dict[str, Any]:
    """Microseconds a token, and what came of the events."""
    asked = requests(STREAMS, 16, tokens_out, 0.0)
    records, cpu = load(server, asked[::2], asked[1::2])
    tokens = sum(record.output_tokens for record in records)
    wall_s = max(r.text_s[-1] for r in records) - min(r.text_s[0] for r in records)
    return {
        "front end, us a token": cpu.frontend / tokens * 1e6,
        "  its main thread, us a token": cpu.frontend_thread / tokens * 1e6,
        "engine process, us a token": cpu.engine / tokens * 1e6,
        "tokens an event": tokens / sum(len(record.text_s) for record in records),
        "tokens a second, wall": tokens / wall_s,
        "tokens a second of main thread": tokens / cpu.frontend_thread,
    }


def arrivals(server: Server) -> dict[str, Any]:
    """Prompts that come all at once: what one costs, and how long running streams stand still."""
    begun = requests(BYSTANDERS, 16, 400, 0.0)
    crowd = requests(ARRIVALS, 1024, 1, 1.5)
    records, cpu = load(server, begun, crowd)
    alone = load(server, begun)[1]
    gaps = [gap for r in records if r.output_tokens > 1 for gap in r.gaps_s]
    ttft = sorted(r.ttft_s for r in records if r.output_tokens == 1)
    return {
        "front end, ms a request": (cpu.frontend - alone.frontend) / ARRIVALS * 1e3,
        "engine process, ms a request": (cpu.engine - alone.engine) / ARRIVALS * 1e3,
        "longest gap in a stream, ms, wall": max(gaps) * 1e3,
        "time to first token p50, ms, wall": percentile(ttft, 50) * 1e3,
        "time to first token p99, ms, wall": percentile(ttft, 99) * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--slow-ms", type=float, default=100, help="step of the load one by one")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder)
        with serving(folder, arguments.slow_ms) as server:
            figures["one by one"] = streaming(server, 64)
        with serving(folder, 4) as server:
            figures["flat out"] = streaming(server, 256)
        with serving(folder, 10) as server:
            figures["arrivals"] = arrivals(server)
    print(f"{cpu_name()}, Python {platform.python_version()}, {datetime.date.today()}")
    for title, group in figures.items():
        print(title)
        for name, value in group.items():
            print(f"  {name:<40} {value:10,.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
