"""Keep a device's threads, and the memory that they ask for, on its own socket.

Memory of another socket is read at a fraction of the speed, and decoding is nothing but reading. What
there is comes from /sys/devices/system; what this process may use (taskset, a container) still holds.
"""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/sys/devices/system")
SET_MEMPOLICY = {"x86_64": 238}  # number of the system call
MPOL_PREFERRED_MANY = 5  # other nodes serve only when these are full (Linux 5.15)


@dataclass(frozen=True)
class Socket:
    """cpus: logical processors that this process may use; cores: how many physical ones they are."""

    number: int
    cpus: frozenset[int]
    cores: int
    nodes: frozenset[int]  # of memory


def sockets(system: Path = SYSTEM) -> list[Socket]:
    """Those on which this process may run; empty where the system does not say."""
    allowed = os.sched_getaffinity(0)
    by_number: dict[int, set[int]] = {}
    firsts: dict[int, int] = {}
    for cpu in allowed:
        topology = system / f"cpu/cpu{cpu}/topology"
        number = _read(topology / "physical_package_id")
        if number.lstrip("-").isdigit():
            by_number.setdefault(int(number), set()).add(cpu)
            firsts[cpu] = min(_cpus(_read(topology / "thread_siblings_list")) | {cpu})
    nodes = {
        int(folder.name.removeprefix("node")): _cpus(_read(folder / "cpulist"))
        for folder in system.glob("node/node[0-9]*")
    }
    return [
        Socket(
            number,
            frozenset(cpus),
            len({firsts[cpu] for cpu in cpus}),
            frozenset(node for node, its in nodes.items() if its & cpus),
        )
        for number, cpus in sorted(by_number.items())
    ]


def settle(socket: Socket) -> None:
    """Bind this thread, and all that it starts from now on; prefer the socket's own memory."""
    os.sched_setaffinity(0, socket.cpus)
    call = SET_MEMPOLICY.get(platform.machine())
    if call is None or not socket.nodes:
        return
    mask = ctypes.c_ulong(sum(1 << node for node in socket.nodes))
    # A kernel that is too old, or a container that forbids it, leaves memory where threads touch it.
    ctypes.CDLL(None).syscall(call, MPOL_PREFERRED_MANY, ctypes.byref(mask), ctypes.c_ulong(65))


def _cpus(text: str) -> set[int]:
    """ "0-3,8" -> {0, 1, 2, 3, 8}"""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
