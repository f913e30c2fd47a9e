"""The line of waiting requests: who is admitted next, so that caches are used and nobody starves."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator

from inarch.engine.request import Request

WINDOW = 64  # requests, oldest first, among which the longest cached prefix is sought
MAX_PASSED_OVER = 16  # times a request may be passed over before it goes first


class WaitingLine:
    """First come, first served, but for cached prefixes; who was set back stands in front."""

    def __init__(self) -> None:
        self._line: OrderedDict[Request, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._line)

    def __contains__(self, request: Request) -> bool:
        return request in self._line

    def join(self, request: Request) -> None:
        self._line[request] = None

    def return_first(self, request: Request) -> None:
        """Put a request that had to give up its memory in front of all others."""
        request.passed_over = MAX_PASSED_OVER
        self._line[request] = None
        self._line.move_to_end(request, last=False)

    def leave(self, request: Request) -> None:
        del self._line[request]

    def admit(self, request: Request) -> None:
        """Take a request out of the line, and note whom it has passed."""
        for other in self._line:
            if other is request:
                break
            other.passed_over += 1
        del self._line[request]

    def candidates(self, cached: Callable[[Request], int]) -> list[Request]:
        """Whom to admit next, in order: the oldest, those with the longest cached prefix first.

        Requests that were passed over too often come before all others. Those whose last token the
        device alone knows cannot be admitted yet.
        """
        window = [r for r in itertools.islice(self._line, WINDOW) if not r.in_flight]
        if len(window) == 1:
            return window
        prefix = {request: cached(request) for request in window}
        return sorted(window, key=lambda r: (r.passed_over < MAX_PASSED_OVER, -prefix[r]))
