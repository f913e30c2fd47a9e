"""What an engine leaves behind when it dies: whom it was working for, and that it went on until then.

A file mapped into memory: writing to it costs nanoseconds, and it outlives the process that wrote,
however that ended. Messages do not: what was sent last is lost with the process.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple

import msgspec

BEATS, TOKENS, ON_TRIAL, HOLDERS = 0, 1, 2, 4  # where each part begins, in cells
CELL_BYTES = 8


class Incarnation(msgspec.Struct, frozen=True):
    """One life of an engine; whatever belongs to an earlier one is void."""

    folder: str  # that only this user may enter
    number: int  # from 1 on

    @property
    def address(self) -> str:
        """Where it listens, in ZeroMQ's words."""
        return f"ipc://{self.folder}/{self.number}"

    @property
    def journal(self) -> Path:
        return Path(self.folder, f"{self.number}.journal")


class Holder(NamedTuple):
    """A sample, as an engine knows it."""

    client: bytes
    handle: int


class Journal:
    """Cells of 64 bits: steps of the loop, tokens made, and who has which row of the batch.

    One process writes, and others read once it has ended, or look whether the beats go on.
    """

    def __init__(self, path: Path, rows: int | None = None) -> None:
        """rows: make the file, for so many running requests; None: it is there."""
        if rows is not None:
            path.write_bytes(bytes(CELL_BYTES * (HOLDERS + 2 * rows)))
        with path.open("r+b") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        self.holders = self._cells[HOLDERS:]  # client and handle of each row, in turn; 0: nobody

    def beat(self) -> None:
        self._cells[BEATS] += 1

    @property
    def beats(self) -> int:
        return self._cells[BEATS]

    def count(self, tokens: int) -> None:
        self._cells[TOKENS] += tokens

    @property
    def tokens(self) -> int:
        return self._cells[TOKENS]

    def try_out(self, holder: Holder | None) -> None:
        """Note who is on trial: see `inarch.engine.trials`."""
        client, handle = holder or (b"", 0)
        self._cells[ON_TRIAL], self._cells[ON_TRIAL + 1] = as_number(client), handle

    @property
    def on_trial(self) -> Holder | None:
        return self._holder(ON_TRIAL)

    def running(self) -> set[Holder]:
        """Whose rows were in the batch."""
        places = range(HOLDERS, len(self._cells), 2)
        return {holder for place in places if (holder := self._holder(place))}

    def _holder(self, place: int) -> Holder | None:
        client, handle = self._cells[place : place + 2]
        return Holder(client.to_bytes(CELL_BYTES, "little"), handle) if handle else None


def as_number(client: bytes) -> int:
    """A client's name as a cell holds it."""
    return int.from_bytes(client, "little")
