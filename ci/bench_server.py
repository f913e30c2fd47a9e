"""Whether the server keeps three promises, measured through HTTP with a backend that computes nothing.

    python ci/bench_server.py [--json FILE]

    throughput  512 streams, as fast as they go: at least 30,000 tokens a second and core of a front end
    idle        2,000 connections that ask for nothing: what they take, and that streams go on
    latency     1,000 tokens a second: p99 of the time from the end of a step to the client, below 10 ms

The one front end has the first core for itself; the engine and the load share the second one. The
load reads bytes and looks for two words in them, so it hardly counts. Where others use the machine too,
the figure by processor time is the one to trust.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import selectors
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench_frontend import Cpu, child, install, serving
from gpu_server import Server
from null_backend import FIRST_TELLING
from null_plugin import VOCABULARY

from inarch.bench.report import percentile
from inarch.hal.reference.host import cpu_name

STREAMS, TOKENS = 512, 200
IDLE = 2000
PACED_STREAMS, PACED_STEP_MS, PACED_TOKENS = 50, 50, 200  # 1,000 tokens a second
FRONT_END_CORE, OTHER_CORE = 0, 1
WORD = re.compile(rb'"text":"(?: t(\d+))+"')


@dataclass
class Stream:
    """One request on a connection of its own."""

    socket: socket.socket
    events: int = 0
    tail: bytes = b""
    heard: list[tuple[float, int]] = field(
        default_factory=list
    )  # when, and the last token's number

    def hear(self, data: bytes, *, closely: bool) -> bool:
        """Take what has come; whether the answer is complete. closely: note which token came when."""
        now = time.monotonic()
        self.events += data.count(b'"choices":[{')
        if closely:
            self.heard += [(now, int(found)) for found in WORD.findall(data)]
        self.tail = (self.tail + data)[-4096:]
        return b"data: [DONE]" in self.tail

    @property
    def tokens(self) -> int:
        (found,) = re.findall(rb'"completion_tokens":(\d+)', self.tail)
        return int(found)


def stream_all(port: int, count: int, tokens: int, *, closely: bool = False) -> list[Stream]:
    """Stream `count` answers at once, to their end."""
    body = json.dumps({
        "prompt": [5] * 16, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True},
    }).encode()  # fmt: skip
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    streams, open_ = [], selectors.DefaultSelector()
    for _ in range(count):
        one = Stream(socket.create_connection(("127.0.0.1", port)))
        one.socket.sendall(request + body)
        open_.register(one.socket, selectors.EVENT_READ, one)
        streams.append(one)
    while open_.get_map():
        for key, _ in open_.select():
            one = key.data
            data = one.socket.recv(1 << 18)
            assert data, f"the server hung up: {one.tail!r}"
            if one.hear(data, closely=closely):
                assert one.tokens == tokens, f"{one.tokens} tokens of {tokens}"
                open_.unregister(one.socket)
                one.socket.close()
    return streams


def pin(server: Server) -> None:
    """Give the front end a core, and the engine and this process the other one."""
    if (os.cpu_count() or 1) < 2:
        return
    cores = {
        child(server.pid, "inarch_server.process.worker"): FRONT_END_CORE,
        child(server.pid, "inarch.engine.process"): OTHER_CORE,
        os.getpid(): OTHER_CORE,
    }
    for pid, core in cores.items():
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def throughput(folder: Path, step_ms: float, tokens: int) -> dict[str, float]:
    with serving(folder, step_ms) as server:
        pin(server)
        stream_all(port_of(server), 64, 20)  # what is loaded at first use
        before, began = Cpu.of(server.pid), time.monotonic()
        streams = stream_all(port_of(server), STREAMS, tokens)
        took, cpu = time.monotonic() - began, Cpu.of(server.pid).since(before)
    total = STREAMS * tokens
    return {
        "tokens a second and core of processor time": total / cpu.frontend,
        "tokens a second of wall time": total / took,
        "tokens an event": total / sum(stream.events for stream in streams),
        "front end, us a token": cpu.frontend / total * 1e6,
        "engine process, us a token": cpu.engine / total * 1e6,
    }


def latency(folder: Path, idle: int) -> dict[str, float]:
    """From the end of a step, as the device tells it, to the client that reads its token."""
    log = folder / f"steps-{idle}"
    os.environ["INARCH_NULL_LOG"] = str(log)
    try:
        with serving(folder, PACED_STEP_MS) as server:
            pin(server)
            front_end = child(server.pid, "inarch_server.process.worker")
            before = _resident(front_end)
            idlers = [socket.create_connection(("127.0.0.1", port_of(server))) for _ in range(idle)]
            time.sleep(1.0)
            grown = _resident(front_end) - before
            streams = stream_all(port_of(server), PACED_STREAMS, PACED_TOKENS, closely=True)
            for one in idlers:
                one.close()
    finally:
        del os.environ["INARCH_NULL_LOG"]
    added = sorted(_added_ms(streams, log))
    figures = {f"added latency p{p}, ms": percentile(added, p) for p in (50, 90, 99)}
    return {
        "tokens a second": PACED_STREAMS * 1000 / PACED_STEP_MS,
        **figures,
        "idle connections": idle,
        **({"memory of an idle connection, KiB": grown / idle} if idle else {}),
    }


def _added_ms(streams: Sequence[Stream], log: Path) -> list[float]:
    ends = [end for (end,) in struct.iter_unpack("=d", log.read_bytes())]
    return [
        (when - ends[(number - FIRST_TELLING) % (VOCABULARY // 2)]) * 1000
        for stream in streams
        for when, number in stream.heard
    ]


def _resident(pid: int) -> int:
    """KiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder)
        figures: dict[str, dict[str, Any]] = {
            "throughput, a token an event": throughput(folder, 150, 40),
            "throughput, flat out": throughput(folder, 0.1, TOKENS),
            "latency": latency(folder, 0),
            "latency beside idle connections": latency(folder, IDLE),
        }
    print(f"{cpu_name()}, Python {platform.python_version()}, {datetime.date.today()}")
    for title, group in figures.items():
        print(title)
        for label, value in group.items():
            print(f"  {label:<44} {value:10,.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
