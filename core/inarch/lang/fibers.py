"""Programs that wait for the model without a thread each.

A program is an ordinary function that reads variables the model is still writing. Each runs in a
fiber (a greenlet): where it would block, it hands control back to whoever drives it, which meanwhile
runs other programs. Outside of a fiber, waiting blocks the thread as usual.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_threads
from dataclasses import dataclass
from typing import Any, TypeVar

import greenlet

T = TypeVar("T")

AHEAD = 4  # programs at their first call or behind it, for each that runs: the order is among these


class Fiber(greenlet.greenlet):
    """Runs `call` whenever it is switched to; yields the future that it waits for, None at its end."""

    outcome: Future[Any]

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(self._call)
        self._program = call
        self.outcome = Future()

    def _call(self) -> None:
        try:
            self.outcome.set_result(self._program())
        except BaseException as error:
            self.outcome.set_exception(error)

    def resume(self) -> Future[Any] | None:
        """Let it run until it waits, and tell for what; None: it has ended."""
        self.parent = greenlet.getcurrent()
        pending: Future[Any] | None = self.switch()
        if not self.dead:
            return pending
        error = self.outcome.exception()
        if error is not None and not isinstance(error, Exception):
            raise error  # Ctrl-C, or an exit: meant for the thread, not for this program
        return None

    def kill(self) -> None:
        """End it where it stands, by an exception that it cannot mistake for one of its own."""
        if self and not self.dead:
            self.parent = greenlet.getcurrent()
            self.throw(greenlet.GreenletExit)


def wait(future: Future[T]) -> T:
    """The result of a future; only the program that asks for it stands still meanwhile."""
    current = greenlet.getcurrent()
    if isinstance(current, Fiber) and not future.done():
        assert current.parent is not None
        current.parent.switch(future)
    return future.result()


class _Awake:
    """The programs that can go on. A driver that is itself in a fiber waits for them as one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: deque[int] = deque()
        self._news: Future[None] = Future()

    def put(self, number: int) -> None:
        with self._lock:
            self._ready.append(number)
            news, self._news = self._news, Future()
        news.set_result(None)

    def by(self, number: int) -> Callable[[Future[Any]], None]:
        return lambda _: self.put(number)

    def get(self) -> int:
        while True:
            with self._lock:
                if self._ready:
                    return self._ready.popleft()
                news = self._news
            wait(news)


@dataclass(frozen=True)
class Job:
    """A program to drive. Its first call waits for `release`; until then `opening` tells, of what
    it has said by then, in which order programs share most."""

    call: Callable[[], object]
    opening: Callable[[], str]
    release: Callable[[], None]


def drive(jobs: Sequence[Job], at_once: int) -> Iterator[int]:
    """Run programs in this thread: each one's number as it ends.

    Several times `at_once` are brought to their first call, and so many are let go on, sorted by
    their openings: those that begin alike run side by side. Whoever leaves early leaves none running.
    """
    awake, fibers, released = _Awake(), dict[int, Fiber](), set[int]()
    line, begun = list[tuple[str, int]](), 0  # line: those at their first call, sorted

    def ended(number: int) -> bool:
        pending = fibers[number].resume()
        if pending is not None:
            pending.add_done_callback(awake.by(number))
            return False
        del fibers[number]
        released.discard(number)
        return True

    try:
        while begun < len(jobs) or fibers:
            while begun < len(jobs) and len(fibers) < AHEAD * at_once:
                number, begun = begun, begun + 1
                fibers[number] = Fiber(jobs[number].call)
                if ended(number):
                    yield number
                else:
                    insort(line, (jobs[number].opening(), number))
            while line and len(released) < at_once:
                _, number = line.pop(0)
                if number in fibers:
                    released.add(number)
                    jobs[number].release()
            if fibers and ended(number := awake.get()):
                yield number
    finally:
        for fiber in fibers.values():
            fiber.kill()


def drive_threads(calls: Sequence[Callable[[], object]], threads: int) -> Iterator[int]:
    """The same in threads, for programs that wait for other things than the model."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="inarch.lang")
    try:
        running = {pool.submit(call): number for number, call in enumerate(calls)}
        while running:
            done, _ = wait_for_threads(running, return_when=FIRST_COMPLETED)
            yield from sorted(running.pop(future) for future in done)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


async def drive_async(call: Callable[[], T]) -> T:
    """Run a program in this event loop, which goes on with other things while it waits."""
    fiber = Fiber(call)
    try:
        while (pending := fiber.resume()) is not None:
            await asyncio.wait([asyncio.wrap_future(pending)])
    finally:
        fiber.kill()
    result: T = fiber.outcome.result()
    return result
