"""The line of waiting requests: who is admitted next, so that caches are used and nobody starves."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator

from inarch.engine.request import Request

WINDOW = 64  # requests, first in line first, among which the longest cached prefix is sought
MAX_PASSED_OVER = 16  # times a request may be passed over by its equals before it goes first
MAX_OUTRANKED = 64  # admissions of higher priority in a row, before a lower one has its turn


class WaitingLine:
    """Higher priority first; among equals first come, first served, but for cached prefixes.

    Who was set back stands in front of its equals.
    """

    def __init__(self) -> None:
        # By priority, the one that was served (or came to be) longest ago first.
        self._lines: OrderedDict[int, OrderedDict[Request, None]] = OrderedDict()
        self._served: dict[int, int] = {}  # priority -> admissions of all when that was
        self._admissions = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Request]:
        for priority in sorted(self._lines, reverse=True):
            yield from self._lines[priority]

    def __contains__(self, request: Request) -> bool:
        return request in self._lines.get(request.priority, ())

    def join(self, request: Request) -> None:
        self._line_of(request)[request] = None
        self._size += 1

    def return_first(self, request: Request) -> None:
        """Put a request that had to give up its memory in front of its equals."""
        request.passed_over = MAX_PASSED_OVER
        self.join(request)
        self._line_of(request).move_to_end(request, last=False)

    def leave(self, request: Request) -> None:
        line = self._lines[request.priority]
        del line[request]
        self._size -= 1
        if not line:
            del self._lines[request.priority], self._served[request.priority]

    def admit(self, request: Request) -> None:
        """Take a request out of the line, and note whom it has passed."""
        for other in self._lines[request.priority]:
            if other is request:
                break
            other.passed_over += 1
        self._admissions += 1
        self._lines.move_to_end(request.priority)
        self._served[request.priority] = self._admissions
        self.leave(request)

    def candidates(self, cached: Callable[[Request], int]) -> list[Request]:
        """Whom to admit next, in order: by priority, then those with the longest cached prefix.

        Requests that were passed over too often come before their equals, and the first one of a
        priority that was outranked too often before all. Those whose last token the device alone
        knows cannot be admitted yet.
        """
        front = list(itertools.islice(self, WINDOW))
        turn = self._outranked()
        if turn is not None and turn not in front:
            front.append(turn)
        window = [request for request in front if not request.in_flight]
        if len(window) == 1:
            return window
        prefix = {request: cached(request) for request in window}
        return sorted(
            window,
            key=lambda r: (r is not turn, -r.priority, r.passed_over < MAX_PASSED_OVER, -prefix[r]),
        )

    def _line_of(self, request: Request) -> OrderedDict[Request, None]:
        line = self._lines.get(request.priority)
        if line is None:
            line = self._lines[request.priority] = OrderedDict()
            self._served[request.priority] = self._admissions
        return line

    def _outranked(self) -> Request | None:
        """The first request of the priority that has waited too long for its turn, if one has."""
        if len(self._lines) < 2:
            return None
        priority = next(iter(self._lines))
        if self._admissions - self._served[priority] < MAX_OUTRANKED:
            return None
        return next(iter(self._lines[priority]))
