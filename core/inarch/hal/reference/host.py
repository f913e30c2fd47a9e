"""What this machine is: its processor, and the memory that this process may really use.

A container's limit counts as much as the machine's own memory: what there is, is the smaller one.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


def cpu_name() -> str:
    """The processor's name, for people."""
    fields = _cpuinfo()
    return fields.get("model name") or platform.processor() or platform.machine() or "CPU"


def cpu_features() -> frozenset[str]:
    """Instruction set extensions, as the kernel names them ("avx2", "amx_bf16", "asimd")."""
    fields = _cpuinfo()
    return frozenset((fields.get("flags") or fields.get("Features") or "").split())


def _cpuinfo() -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in _read(PROC / "cpuinfo").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


@dataclass(frozen=True)
class HostMemory:
    """Bytes: what the process may use at most, and how much of that is free now."""

    total: int
    free: int


def host_memory() -> HostMemory:
    """Measure: the machine's memory, cut to the limits of the control groups we run in."""
    meminfo = _kilobytes(PROC / "meminfo")
    total = meminfo.get("MemTotal") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = meminfo.get("MemAvailable", total - process_memory())
    for limit, used in _cgroup_limits():
        total, free = min(total, limit), min(free, max(limit - used, 0))
    return HostMemory(total, free)


def process_memory() -> int:
    """Bytes that this process holds now; where the system does not say, the most it ever held."""
    return _kilobytes(PROC / "self/status").get("VmRSS") or _highest_rss()


def process_peak() -> int:
    """The most bytes that this process held at once since `reset_process_peak`."""
    return _kilobytes(PROC / "self/status").get("VmHWM") or _highest_rss()


def reset_process_peak() -> None:
    """Start a new peak where the system allows it (Linux); elsewhere it counts from the start."""
    try:
        (PROC / "self/clear_refs").write_text("5")
    except OSError:
        return


def _highest_rss() -> int:
    import resource  # not on every system

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cgroup_limits() -> Iterator[tuple[int, int]]:
    """(limit, bytes used that cannot be reclaimed) of each memory group above this process."""
    for line in _read(PROC / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _limits_above(CGROUP, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _limits_above(CGROUP / "memory", path, *names)


def _limits_above(
    root: Path, path: str, limit_file: str, usage_file: str, cache_field: str
) -> Iterator[tuple[int, int]]:
    # Inside a container the path may be the host's and not exist here; its root then is the limit.
    group = root / path.strip("/")
    for folder in (group, *group.parents):
        limit, usage = _read(folder / limit_file).strip(), _read(folder / usage_file).strip()
        if limit.isdigit() and usage.isdigit():
            yield int(limit), int(usage) - _stat(folder / "memory.stat", cache_field)
        if folder == root:
            return


def _stat(path: Path, field: str) -> int:
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == field:
            return int(value)
    return 0


def _kilobytes(path: Path) -> dict[str, int]:
    """The "Name:  123 kB" lines of a file of /proc, in bytes."""
    lines = (line.split() for line in _read(path).splitlines())
    return {
        words[0].rstrip(":"): int(words[1]) * 1024
        for words in lines
        if len(words) == 3 and words[2] == "kB"
    }


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
