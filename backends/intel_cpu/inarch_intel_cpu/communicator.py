"""Collectives between processes of one machine, through memory that they share.

Each rank writes what it gives into its own part of the memory, all meet, and each reads what it needs.
There are two parts a rank, used in turn: whoever writes to one again has met the others since they
read it. Sums are of float32 and in rank order, so that all ranks get the same bits.

The memory has a name in /dev/shm only until everyone is there: whatever happens, nothing is left.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inarch.errors import BackendError
from inarch_intel_cpu.native import Native

SHARED = Path("/dev/shm")
PART = 4 << 20  # bytes that a rank may give at once
SEAT = 64  # bytes: see csrc/meeting.cpp
CARD = 192  # bytes in which each rank says who it is, as JSON
SECONDS = 300  # to come, and for any one meeting
LOOK = 0.005  # seconds between two looks whether the others have come


class SharedMemoryCommunicator:
    """Ranks 0..size-1 of one machine that meet at any `address` which nobody else uses."""

    def __init__(
        self, rank: int, size: int, address: str, native: Native, *, seconds: int = SECONDS
    ) -> None:
        self.rank, self.size, self._seconds = rank, size, seconds
        self._meet, self._leave = native.kernel("meet"), native.kernel("leave")
        self._path = SHARED / f"inarch-{hashlib.sha256(address.encode()).hexdigest()[:24]}"
        self._head = -(-size * (SEAT + CARD) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._processes = np.full(size, -1, np.int32)
        self._found = np.zeros(2, np.int64)
        self._turn = 0
        until = time.monotonic() + seconds
        self._memory = self._create() if rank == 0 else self._attach(until)
        self._bytes = torch.frombuffer(self._memory, dtype=torch.uint8)
        try:
            self._wait_for_everyone(until)
            self.barrier()
        finally:
            if rank == 0:
                self._path.unlink(missing_ok=True)

    # ---- coming together ----

    def _create(self) -> mmap.mmap:
        mine = self._path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(mine, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Taken now: a write to memory that is not there would kill the process.
            os.posix_fallocate(descriptor, 0, self._head + 2 * PART * self.size)
            memory = mmap.mmap(descriptor, 0)
            self._sign(memory)
            mine.rename(self._path)  # over one that a run which died has left
        except OSError as error:
            mine.unlink(missing_ok=True)
            raise BackendError(
                f"{self.size} ranks share {2 * PART * self.size >> 20} MiB in {SHARED}, which cannot "
                f"be had: {error}; free some there, or give a container more (--shm-size)"
            ) from error
        finally:
            os.close(descriptor)
        return memory

    def _attach(self, until: float) -> mmap.mmap:
        while True:
            try:
                with self._path.open("r+b") as file:
                    memory = mmap.mmap(file.fileno(), 0)
                if self._alive(memory, 0) is not None:
                    self._sign(memory)
                    return memory
            except (FileNotFoundError, ValueError):
                pass
            except PermissionError as error:
                raise BackendError(f"another user's ranks have this address: {error}") from None
            self._look_again(until, 0)

    def _sign(self, memory: mmap.mmap) -> None:
        card = json.dumps({"pid": os.getpid(), "started": _started(os.getpid())}).encode()
        at = self.size * SEAT + self.rank * CARD
        memory[at : at + CARD] = card.ljust(CARD, b"\0")

    def _alive(self, memory: mmap.mmap, rank: int) -> int | None:
        """The process of a rank that has signed and still runs."""
        at = self.size * SEAT + rank * CARD
        card = bytes(memory[at : at + CARD]).rstrip(b"\0")
        if not card.endswith(b"}"):
            return None
        said = json.loads(card)
        return said["pid"] if _started(said["pid"]) == said["started"] else None

    def _wait_for_everyone(self, until: float) -> None:
        for rank in range(self.size):
            if rank == self.rank:
                continue
            while (pid := self._alive(self._memory, rank)) is None:
                self._look_again(until, rank)
            try:
                self._processes[rank] = os.pidfd_open(pid)
            except ProcessLookupError:
                raise BackendError(f"rank {rank} of {self.size} has ended") from None

    def _look_again(self, until: float, missing: int) -> None:
        if time.monotonic() > until:
            raise BackendError(
                f"rank {self.rank} of {self.size} waited {self._seconds} s for rank {missing}, which "
                "did not come: start all ranks with the same address"
            )
        time.sleep(LOOK)

    # ---- what the others give ----

    def _part(self, rank: int, like: Tensor, count: int) -> Tensor:
        at = self._head + (2 * rank + self._turn) * PART
        return self._bytes[at : at + count * like.itemsize].view(like.dtype)

    def _parts(self, flat: Tensor, *, width: int = 1) -> Iterator[tuple[slice, list[Tensor]]]:
        """Pieces of flat [width, N] and what each rank gives of it, [width, n]; N alike for all."""
        rows = flat.view(width, -1)
        step = max(1, PART // (rows.itemsize * width))
        for start in range(0, rows.shape[1], step):
            piece = rows[:, start : start + step]
            self._turn = 1 - self._turn
            self._part(self.rank, piece, piece.numel()).view(piece.shape).copy_(piece)
            self.barrier()
            given = (self._part(rank, piece, piece.numel()) for rank in range(self.size))
            yield slice(start, start + step), [each.view(piece.shape) for each in given]

    def all_reduce(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        for place, parts in self._parts(x.contiguous()):
            out.view(1, -1)[:, place] = _sum(parts)
        return out

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        found = x.new_empty((self.size, *x.shape))
        for place, parts in self._parts(x.contiguous()):
            torch.cat(parts, out=found.view(self.size, -1)[:, place])
        return torch.cat(found.unbind(), dim)

    def reduce_scatter(self, x: Tensor, dim: int = 0) -> Tensor:
        shares = torch.stack(x.tensor_split(self.size, dim))
        out = torch.empty_like(shares[0])
        for place, parts in self._parts(shares, width=self.size):
            out.view(-1)[place] = _sum([part[self.rank] for part in parts])
        return out

    def all_to_all(self, x: Tensor, send: list[int], receive: list[int]) -> Tensor:
        sizes = self.all_gather(torch.tensor([send]), 0)
        row = x[0].numel() if len(x) else x.new_empty(x.shape[1:]).numel()
        given = x.new_empty(int(sizes.sum(1).max()) * row)
        given[: x.numel()] = x.flatten()
        everything = self.all_gather(given, 0).view(self.size, -1)
        starts = (sizes.cumsum(1) - sizes)[:, self.rank].tolist()
        found = [
            everything[rank, start * row : (start + count) * row]
            for rank, (start, count) in enumerate(zip(starts, receive, strict=True))
        ]
        return torch.cat(found).view(sum(receive), *x.shape[1:])

    def broadcast(self, x: Tensor, source: int) -> Tensor:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        for place, parts in self._parts(x.contiguous()):
            out.view(1, -1)[:, place] = parts[source]
        return out

    def barrier(self) -> None:
        self._meet(
            self._bytes, self.rank, self.size, self._processes.ctypes.data, self._seconds,
            self._found.ctypes.data,
        )  # fmt: skip
        trouble, other = self._found.tolist()
        if trouble:
            why = "has ended" if trouble == 1 else f"did not come within {self._seconds} s"
            raise BackendError(f"rank {other} of {self.size} {why}: start all ranks again")

    def close(self) -> None:
        self._leave(self._bytes, self.rank)
        for descriptor in self._processes[self._processes >= 0]:
            os.close(int(descriptor))
        self._processes[:] = -1


def _sum(parts: list[Tensor]) -> Tensor:
    first = parts[0]
    if not first.is_floating_point() or first.dtype == torch.float32:
        return torch.stack(parts).sum(0, dtype=first.dtype)
    return torch.stack(parts).sum(0, dtype=torch.float32).to(first.dtype)


def _started(pid: int) -> str | None:
    """When a process began, in the system's ticks; None if it is none that runs."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
