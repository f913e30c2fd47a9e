"""Numbers that only grow, in memory that several processes can read and one writes.

Several front-end processes serve one port, and whichever answers /metrics must show all of them. Each
keeps its numbers in a mapped file of its own; their sum is the server's. What a process has counted
outlives it: a counter that fell would look like a restart of the whole server.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import Counter
from pathlib import Path

RECORD = 256  # bytes: a name, and a float64 at the end
NAME = RECORD - 8
CAPACITY = 4096  # names; the first record holds how many there are
SUFFIX = ".tally"


class Tally:
    """`values[slot(name)] += amount` counts; the value of a name is where its record ends.

    folder: where the tallies of all processes of one server lie; None: nobody else has one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._slots: dict[str, int] = {}
        size = RECORD * CAPACITY
        if folder is None:
            self._memory = mmap.mmap(-1, size)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / f"{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}", "w+b") as file:
                file.truncate(size)
                self._memory = mmap.mmap(file.fileno(), size)
        self.values = memoryview(self._memory).cast("d")

    def slot(self, name: str) -> int:
        """Where in `values` the number of this name is; made at 0 if it is new."""
        slot = self._slots.get(name)
        if slot is None:
            number, raw = len(self._slots) + 1, name.encode()
            if len(raw) > NAME or number == CAPACITY:
                raise ValueError(f"no room to count {name[:80]!r}")
            start = number * RECORD
            self._memory[start : start + len(raw)] = raw
            slot = self._slots[name] = (start + NAME) // 8
            self.values[NAME // 8] = number  # last: a reader sees whole records
        return slot

    def add(self, name: str, amount: float = 1.0) -> None:
        self.values[self.slot(name)] += amount

    def total(self) -> dict[str, float]:
        """By name, the sum over all processes of the server, those that have ended included."""
        if self._folder is None:
            return _read(self._memory)
        total: Counter[str] = Counter()
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            raw = path.read_bytes()
            if len(raw) == RECORD * CAPACITY:  # else it is only just being made
                total.update(_read(raw))
        return dict(total)


def _read(memory: bytes | mmap.mmap) -> dict[str, float]:
    (count,) = struct.unpack_from("=d", memory, NAME)
    records = (memory[i * RECORD : (i + 1) * RECORD] for i in range(1, int(count) + 1))
    return {
        record[:NAME].rstrip(b"\0").decode(): struct.unpack_from("=d", record, NAME)[0]
        for record in records
    }
