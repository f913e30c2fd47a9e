"""What a soak watches besides the answers: memory of the server over time, and its own numbers."""

from __future__ import annotations

import re
import statistics
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
WINDOW = 0.25  # of the samples that count, at either end: their medians are compared
LEAST_SAMPLES = 8


@dataclass(frozen=True)
class Sample:
    """Bytes, so many seconds after the load began."""

    at_s: float
    host: int  # resident, of the server's processes
    device: int | None  # in use on the device, by everybody


@dataclass
class Watch:
    """Takes samples of a process and its children."""

    pid: int
    on_device: bool
    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)

    def sample(self) -> Sample:
        host = sum(map(resident, family(self.pid)))
        at_s = time.monotonic() - self.began
        self.samples.append(Sample(at_s, host, device_memory() if self.on_device else None))
        return self.samples[-1]


def family(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    found = [pid]
    for parent in found:
        for children in PROC.glob(f"{parent}/task/*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # it has ended
                continue
    return found


def resident(pid: int) -> int:
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    said = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    return int(said[1]) * 1024 if said else 0


def device_memory() -> int:
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def growth(samples: Sequence[tuple[float, int]], settled_s: float) -> int | None:
    """How much more at the end than after `settled_s`; None: too few samples to tell."""
    counted = [value for at_s, value in samples if at_s >= settled_s]
    if len(counted) < LEAST_SAMPLES:
        return None
    window = max(1, round(len(counted) * WINDOW))
    return round(statistics.median(counted[-window:]) - statistics.median(counted[:window]))


def metrics(url: str) -> dict[str, float]:
    """The server's numbers without their labels; the last one of those that differ in them alone."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    lines = re.findall(r"^([\w:]+)(?:\{.*\})? (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def unfinished(numbers: dict[str, float]) -> list[str]:
    """What an idle server should not hold any more."""
    held = ("sglang:num_running_reqs", "sglang:num_queue_reqs", "inarch:kv_pages_used")
    if numbers["inarch:engine_alive"] != 1:
        return ["the engine does not answer"]
    return [f"{name} is {numbers[name]:g}" for name in held if numbers[name]]
