"""Programs that wait for the model without a thread each.

A program is an ordinary function that reads variables the model is still writing. Each runs in a
fiber (a greenlet): where it would block, it hands control back to whoever drives it, which meanwhile
runs other programs. Outside of a fiber, waiting blocks the thread as usual.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

import greenlet

T = TypeVar("T")


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


def wait(future: Future[T]) -> T:
    """The result of a future; only the program that asks for it stands still meanwhile."""
    current = greenlet.getcurrent()
    if isinstance(current, Fiber) and not future.done():
        assert current.parent is not None
        current.parent.switch(future)
    return future.result()


def drive(calls: Iterable[Callable[[], T]], at_once: int) -> Iterator[tuple[int, Future[T]]]:
    """Run programs in this thread, so many at once: each one's number and outcome as it ends."""
    waiting = enumerate(calls)
    awake: queue.SimpleQueue[tuple[int, Fiber]] = queue.SimpleQueue()
    running = 0
    exhausted = False
    while not exhausted or running:
        while not exhausted and running < at_once:
            entry = next(waiting, None)
            if entry is None:
                exhausted = True
                break
            running += 1
            awake.put((entry[0], Fiber(entry[1])))
        if not running:
            return
        number, fiber = awake.get()
        if _resume(number, fiber, awake):
            running -= 1
            yield number, fiber.outcome


def _resume(number: int, fiber: Fiber, awake: queue.SimpleQueue[tuple[int, Fiber]]) -> bool:
    """Let it run until it waits again; whether it has ended instead."""
    fiber.parent = greenlet.getcurrent()
    pending: Future[Any] | None = fiber.switch()
    if fiber.dead:
        return True
    assert pending is not None
    pending.add_done_callback(lambda _: awake.put((number, fiber)))
    return False


async def drive_async(call: Callable[[], T]) -> T:
    """Run a program in this event loop, which goes on with other things while it waits."""
    fiber = Fiber(call)
    while True:
        fiber.parent = greenlet.getcurrent()
        pending = fiber.switch()
        if fiber.dead:
            result: T = fiber.outcome.result()
            return result
        await asyncio.wait([asyncio.wrap_future(pending)])
