"""The one event loop in which all generation runs, in a thread of its own, started when needed."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


@functools.cache
def background_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="inarch.lang", daemon=True).start()
    return loop


# Threads do not survive a fork of the process.
os.register_at_fork(after_in_child=background_loop.cache_clear)


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine there."""
    return asyncio.run_coroutine_threadsafe(work, background_loop())
