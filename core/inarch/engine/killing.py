"""End a child process at once, without asking asyncio's object for it.

`Process.kill` first looks whether the child has ended by itself, and takes its exit code if so;
asyncio, which waits for the same child, then finds none and reports an unknown process.
"""

from __future__ import annotations

import contextlib
import os
import signal
from asyncio.subprocess import Process


def kill(process: Process) -> None:
    """SIGKILL, unless its end has been seen; `process.wait` then tells the exit code."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
