"""How a process of the server is asked to end: first to finish and stop, then to stop at once."""

from __future__ import annotations

import asyncio
import signal
from typing import Any


class Stop:
    """Asked once: finish what runs. Asked again: stop at once."""

    def __init__(self, patience_s: float | None = None) -> None:
        """patience_s: how long to let requests finish; None: for as long as they take."""
        self.patience_s = patience_s
        self.asked, self.insisted = asyncio.Event(), asyncio.Event()
        # Who is still starting: there is nothing to finish yet, so it is just cancelled.
        self.starting: asyncio.Task[Any] | None = None

    def ask(self) -> None:
        if self.asked.is_set():
            self.insisted.set()
        elif self.starting is not None:  # once: what was started already is being ended then
            self.starting.cancel()
        self.asked.set()

    def on_signals(self, *numbers: signal.Signals) -> None:
        loop = asyncio.get_running_loop()
        for number in numbers:
            loop.add_signal_handler(number, self.ask)
