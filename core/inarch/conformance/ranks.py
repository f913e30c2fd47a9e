"""Ranks of a communicator, each in a process of its own, which meet and do what they are told.

The processes are forked from a server that has torch loaded already. A rank that raises, ends or does
not answer ends its world; the next case begins with another.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from inarch.conformance.case import Failed, Refused
from inarch.conformance.fresh import found
from inarch.conformance.subject import Subject
from inarch.errors import BackendError
from inarch.hal.collectives import Communicator
from inarch.hal.device import Device

SECONDS = 180.0  # for all ranks to answer: each has a device to open first
LATE = 0.3  # seconds by which rank 0 comes later than the others to a barrier
PRELOADED = [__name__, "torch._dynamo"]  # which torch loads when memory.py watches it


@dataclass(frozen=True)
class Place:
    """Where a rank finds its backend, as `Package.place` has it, and which device it opens there."""

    backend: str
    name: str
    simulated: bool
    devices: int

    @classmethod
    def of(cls, subject: Subject) -> Place:
        backend = subject.backend
        devices = len(backend.probe().devices) or 1
        return cls(subject.place, backend.name, subject.simulated, devices)

    def opened(self, rank: int) -> Subject:
        backend = found(self.backend, self.name)
        device = backend.simulation() if self.simulated else backend.open(rank % self.devices)
        assert isinstance(device, Device)
        return Subject(backend, device, (), self.simulated)


class World:
    """Ranks 0..size-1, met. Raises Refused if the backend forms no such world on this host."""

    def __init__(self, place: Place, size: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.ended = False
        # A place for each rank: no lock, which some containers have no /dev/shm for.
        self._arrived = context.RawArray("i", size)
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(size):
            mine, its = context.Pipe()
            given = (place, rank, size, self._arrived, its)
            process = context.Process(target=serve, args=given, daemon=True)
            process.start()
            its.close()
            self._pipes.append(mine)
            self._processes.append(process)
        self.meet()

    def meet(self) -> None:
        """At a new address; whoever had met before has parted first."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
        self.run(meet, address)

    def run(self, order: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What each rank gives for `order(rank, *arguments)`. Raises Failed or Refused."""
        for pipe in self._pipes:
            _tell(pipe, order, arguments)
        return self._answers()

    def barrier(self) -> list[int]:
        """How many ranks had arrived when each of them went on."""
        for rank in range(len(self._pipes)):
            self._arrived[rank] = 0
        first, *others = self._pipes
        for pipe in others:
            _tell(pipe, barrier)
        wait(others, LATE)
        _tell(first, barrier)
        return self._answers()

    def _answers(self) -> list[Any]:
        answers: dict[int, Any] = {}
        until = time.monotonic() + SECONDS
        while len(answers) < len(self._pipes):
            due = [pipe for rank, pipe in enumerate(self._pipes) if rank not in answers]
            ready = wait(due, max(until - time.monotonic(), 0))
            if not ready:
                missing = [rank for rank in range(len(self._pipes)) if rank not in answers]
                self.end(f"ranks {missing} did not answer within {SECONDS:.0f} s")
            for pipe in ready:
                rank = self._pipes.index(pipe)  # type: ignore[arg-type]
                answers[rank] = self._answer(rank)
        return [answers[rank] for rank in range(len(self._pipes))]

    def _answer(self, rank: int) -> Any:
        try:
            kind, answer = self._pipes[rank].recv()
        except (EOFError, OSError):  # the latter if it left something unread
            self.end(f"the process of rank {rank} of {len(self._pipes)} ended")
        if kind is Refused:
            self.end(answer, Refused)
        if kind is Failed:
            self.end(f"rank {rank} of {len(self._pipes)}: {answer}")
        return answer

    def end(self, why: str, kind: type[Exception] = Failed) -> NoReturn:
        self.ended = True
        for process in self._processes:
            process.kill()
            process.join()
        raise kind(why)


def _tell(pipe: Connection, order: Callable[..., Any], arguments: Sequence[Any] = ()) -> None:
    """Where nobody listens any more, the missing answer tells."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        pipe.send((order, arguments))


# ---- in the process of a rank ----


@dataclass
class Rank:
    """What a rank has: its device, and the communicator once it has met the others."""

    subject: Subject
    rank: int
    size: int
    arrived: Any  # by rank, whether it came to the barrier: memory that all ranks share
    communicator: Communicator | None = None


def serve(place: Place, rank: int, size: int, arrived: Any, pipe: Connection) -> None:
    """Do what comes, until nobody asks any more."""
    own: Rank | None = None
    while True:
        try:
            order, arguments = pipe.recv()
        except EOFError:
            return
        try:
            own = own or Rank(place.opened(rank), rank, size, arrived)
            pipe.send((None, order(own, *arguments)))
        except Refused as refusal:
            pipe.send((Refused, str(refusal)))
        except Exception as error:
            told = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            pipe.send((Failed, told))


def meet(own: Rank, address: str) -> None:
    if own.communicator is not None:
        own.communicator.close()
    try:
        made = own.subject.device.communicator(own.rank, own.size, address)
    except BackendError as error:
        raise Refused(str(error)) from error
    if made is None:
        raise Refused(f"it brings no communicator for {own.size} ranks: sockets serve")
    own.communicator = made


def barrier(own: Rank) -> int:
    assert own.communicator is not None
    own.arrived[own.rank] = 1
    own.communicator.barrier()
    return int(sum(own.arrived))


def numbers(own: Rank) -> tuple[int, int]:
    """What a communicator says of itself."""
    assert own.communicator is not None
    return own.communicator.rank, own.communicator.size
