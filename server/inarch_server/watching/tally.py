"""Numbers that only grow, in memory that several processes can read and one writes.

Several front-end processes serve one port, and whichever answers /metrics must show all of them. Each
keeps its numbers in a mapped file of its own; their sum is the server's. What a process has counted
outlives it: a counter that fell would look like a restart of the whole server.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

# The memory is a row of float64: how many are in use, then for each name a head and its numbers. The
# head is the name in UTF-8, padded with zeros, and how many numbers follow.
SIZE = 1 << 20  # bytes
NAME = 31 * 8  # bytes
SUFFIX = ".tally"
NOTHING = struct.pack("d", 1.0)
# Environment: the folder in which the front-end processes of one server count together.
METRICS_DIR = "INARCH_METRICS_DIR"


class Tally:
    """`tally.of(name)[0] += amount` counts.

    folder: where the tallies of all processes of one server lie; None: nobody else has one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._numbers: dict[str, memoryview[float]] = {}
        if folder is None:
            self._memory = mmap.mmap(-1, SIZE)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / f"{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}", "w+b") as file:
                file.truncate(SIZE)
                self._memory = mmap.mmap(file.fileno(), SIZE)
        self._values = memoryview(self._memory).cast("d")
        self._values[0] = 1

    def of(self, name: str, count: int = 1) -> memoryview[float]:
        """The numbers of this name, to be added to; made at 0 if it is new."""
        found = self._numbers.get(name)
        if found is None:
            start, raw = int(self._values[0]), name.encode()
            first = start + NAME // 8 + 1
            if len(raw) > NAME or (first + count) * 8 > SIZE:
                raise ValueError(f"no room to count {name[:80]!r}")
            self._memory[start * 8 : start * 8 + len(raw)] = raw
            self._values[first - 1] = count
            found = self._numbers[name] = self._values[first : first + count]
            self._values[0] = first + count  # last: who reads it sees only what is whole
        return found

    def total(self) -> dict[str, list[float]]:
        """By name, the sums over all processes of the server, those that have ended included."""
        if self._folder is None:
            return _read(self._memory)
        total: dict[str, list[float]] = {}
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            for name, numbers in _read(_used(path)).items():
                before = total.get(name, [0.0] * len(numbers))
                total[name] = [a + b for a, b in zip(before, numbers, strict=True)]
        return total


def _used(path: Path) -> bytes:
    """The part of a tally that is in use; of one that is only just being made, none of it."""
    with path.open("rb") as file:
        head = file.read(8)
        used = int(struct.unpack("d", head)[0]) if len(head) == 8 else 0
        return head + file.read(8 * (used - 1)) if used else NOTHING


def _read(memory: bytes | mmap.mmap) -> dict[str, list[float]]:
    values = memoryview(memory).cast("d")
    found, at, end = {}, 1, int(values[0])
    while at < end:
        first = at + NAME // 8 + 1
        name = memory[at * 8 : at * 8 + NAME].rstrip(b"\0").decode()
        at = first + int(values[first - 1])
        found[name] = list(map(float, values[first:at]))
    return found
