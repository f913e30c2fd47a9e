"""Suspects: requests that were in the batch when engines died. One of them is let in at a time.

Others go on beside it. If the engine dies again, whose fault it is stands in the journal; if not,
the suspect is soon past the place where it was when the engine died, and the next one is let in.
So of a crowd that ran together only the guilty is refused, for the price of one more death.
"""

from __future__ import annotations

from collections.abc import Callable

from inarch.engine.journal import Holder, Journal
from inarch.engine.messages import NewRequest, TokenOutput

# Tokens that clear a suspect. More than an engine may have made without anyone hearing of it: who
# kills at a certain token is set back by those, but by no more.
CLEARED = 8


class Trials:
    """The line of suspects, and the one among them that the core has."""

    def __init__(self, journal: Journal, begin: Callable[[NewRequest, bytes], object]) -> None:
        """begin: hands a sample to the core."""
        self._journal, self._begin = journal, begin
        self._line: dict[Holder, NewRequest] = {}
        self._now: Holder | None = None
        self._made = 0  # tokens of the one on trial

    def join(self, message: NewRequest, client: bytes) -> None:
        self._line[Holder(client, message.handle)] = message
        self._next()

    def leave(self, client: bytes, handle: int) -> None:
        """A sample was ended by its client."""
        holder = Holder(client, handle)
        self._line.pop(holder, None)
        if holder == self._now:
            self._acquit()

    def forget(self, client: bytes) -> None:
        """A client has gone, with all its samples."""
        self._line = {h: message for h, message in self._line.items() if h.client != client}
        if self._now is not None and self._now.client == client:
            self._acquit()

    def heard(self, client: bytes, output: TokenOutput) -> None:
        """Tokens went out: enough of them, or the last one, clear whom they belong to."""
        if self._now is None or self._now.client != client:
            return
        for index, handle in enumerate(output.handles):
            if handle == self._now.handle:
                self._made += 1
                if self._made >= CLEARED or index in output.finish:
                    self._acquit()
                    return

    def _acquit(self) -> None:
        self._now = None
        self._journal.try_out(None)
        self._next()

    def _next(self) -> None:
        if self._now is None and self._line:
            self._now = next(iter(self._line))
            self._made = 0
            self._journal.try_out(self._now)
            self._begin(self._line.pop(self._now), self._now.client)
