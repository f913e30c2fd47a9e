"""The load generator's processes: starts them together, gathers what they see, stops them.

Workers send each record when its request ends, so an interrupted run keeps all that finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import TYPE_CHECKING

from inarch.bench import BenchError
from inarch.bench.client import Reply, Target, drive
from inarch.bench.record import Record
from inarch.bench.workload import BenchRequest

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

# Fork would copy the threads of a progress bar half-way through their work.
_processes = multiprocessing.get_context("spawn")

PULSE_S = 0.25  # how often a worker tells its state
FEWEST = 4  # requests that are worth a process
LEAD_S = 0.05  # from the word "go" to time zero, so that all workers have heard it


@dataclass(frozen=True, slots=True)
class Pulse:
    """A worker's state: answers in flight, and text events received so far."""

    in_flight: int
    text_events: int


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's part. Workers with the same counter take turns on the same requests."""

    target: Target
    requests: Sequence[BenchRequest]
    slots: int
    counter: Synchronized[int]

    def take(self) -> BenchRequest | None:
        with self.counter.get_lock():
            index = self.counter.value
            self.counter.value += 1
        return self.requests[index] if index < len(self.requests) else None


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a run; an interrupted one lacks the records of unfinished requests."""

    records: list[Record]
    interrupted: bool


Watch = Callable[[Record | None, Pulse], None]  # a finished request or None, the sum of all workers


def make_shares(
    target: Target, requests: Sequence[BenchRequest], concurrency: int | None, processes: int
) -> list[Share]:
    """Divide the work: under a limit the slots, each taking the next request; else the requests."""
    slots = min(concurrency or len(requests), len(requests))
    workers = max(1, min(processes, slots, len(requests) // FEWEST))
    if concurrency is not None:
        counter = _processes.Value("q", 0)
        sizes = [slots // workers + (i < slots % workers) for i in range(workers)]
        return [Share(target, requests, size, counter) for size in sizes]
    parts = [requests[i::workers] for i in range(workers)]
    return [Share(target, part, len(part), _processes.Value("q", 0)) for part in parts]


def run_load(shares: Sequence[Share], watch: Watch) -> Load:
    """Run all shares at once and return when every request has ended, or soon after Ctrl-C.

    Raises BenchError when a worker process dies.
    """
    records: list[Record] = []
    workers: list[_Worker] = []
    with _noted_interrupt() as stop:
        try:
            workers.extend(_Worker.start(share) for share in shares)
            for record, total in _messages(workers, stop):
                if record is not None:
                    records.append(record)
                watch(record, total)
        finally:
            for worker in workers:
                worker.stop()
    return Load(sorted(records, key=lambda r: r.index), stop.is_set())


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    pulse: Pulse = Pulse(0, 0)

    @staticmethod
    def start(share: Share) -> _Worker:
        ours, theirs = _processes.Pipe()
        process = _processes.Process(target=_work, args=(share, theirs), daemon=True)
        with _on_interrupt(signal.SIG_IGN):  # what is ignored at birth is ignored for life
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.process.close()
        self.pipe.close()


def _messages(
    workers: Sequence[_Worker], stop: threading.Event
) -> Iterator[tuple[Record | None, Pulse]]:
    """Let all workers begin at one moment, then yield what they report.

    Ends with the workers, or once `stop` is set and nothing more is waiting to be read.
    """
    for worker in workers:
        _receive(worker)  # ready
    start = time.perf_counter() + LEAD_S  # one clock for all processes of a machine
    for worker in workers:
        worker.pipe.send(start)
    running = {worker.pipe: worker for worker in workers}
    while running:
        ready = multiprocessing.connection.wait(list(running), 0 if stop.is_set() else PULSE_S)
        if not ready and stop.is_set():
            return
        for pipe in ready:
            worker = running[pipe]  # type: ignore[index]  # wait() returns what it was given
            message = _receive(worker)
            if message is None:
                del running[worker.pipe]
            elif isinstance(message, Pulse):
                worker.pulse = message
            record = message if isinstance(message, Record) else None
            yield record, _total(workers)


def _receive(worker: _Worker) -> Record | Pulse | None:
    """The next message: None at the start and at the end of a worker's life."""
    try:
        message: Record | Pulse | None = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        raise BenchError(
            f"a client process died (exit code {worker.process.exitcode}); its traceback is above, "
            "or the system killed it for want of memory"
        ) from None
    return message


def _total(workers: Sequence[_Worker]) -> Pulse:
    pulses = [worker.pulse for worker in workers]
    return Pulse(sum(p.in_flight for p in pulses), sum(p.text_events for p in pulses))


def _work(share: Share, pipe: Connection) -> None:
    """The life of a worker process."""
    _raise_open_file_limit()
    pipe.send(None)
    start = pipe.recv()
    asyncio.run(_drive_share(share, start, pipe))
    pipe.send(None)
    pipe.close()


async def _drive_share(share: Share, start: float, pipe: Connection) -> None:
    live: set[Reply] = set()
    ended_events = 0

    def emit(record: Record) -> None:
        nonlocal ended_events
        ended_events += len(record.text_s)
        pipe.send(record)

    async def tell_pulse() -> None:
        while True:
            pipe.send(Pulse(len(live), ended_events + sum(len(reply.text_s) for reply in live)))
            await asyncio.sleep(PULSE_S)

    pulse = asyncio.create_task(tell_pulse())
    await drive(share.target, share.take, share.slots, start, emit, live)
    pulse.cancel()
    pipe.send(Pulse(0, ended_events))


@contextlib.contextmanager
def _noted_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that no message is torn; a second one interrupts as usual."""
    stop = threading.Event()

    def note(signum: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with _on_interrupt(note):
        yield stop


@contextlib.contextmanager
def _on_interrupt(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers,
) -> Iterator[None]:
    """Handle Ctrl-C with `handler` for a while; only the main thread can, and only it sees one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raise_open_file_limit() -> None:
    """Each request in flight is an open connection, and the usual soft limit is 1024."""
    if os.name != "posix":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
