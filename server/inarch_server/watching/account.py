"""What can be told of one HTTP request once it is over; made once, for the log, traces and errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inarch_server.service import ANSWERS, RECEIVED_S, REFUSED, REQUEST_ID

if TYPE_CHECKING:
    from inarch_server.answering.answers import Answers


@dataclass(frozen=True)
class Account:
    id: str
    route: str
    method: str
    status: int
    headers: Mapping[str, str]
    received_s: float  # on time.perf_counter, as all times of a Stopwatch
    ended_s: float
    answers: Answers | None  # None: it asked for none, or was refused before
    error: Mapping[str, Any] | None  # OpenAI's error object
    # What to add to a time on time.perf_counter to have nanoseconds since 1970.
    epoch_ns: int = field(default_factory=lambda: time.time_ns() - int(time.perf_counter() * 1e9))

    @property
    def seconds(self) -> float:
        return self.ended_s - self.received_s

    @property
    def finish_reasons(self) -> list[str]:
        """By choice; "abort" for those that did not come to their end."""
        if self.answers is None:
            return []
        reasons = self.answers.stopwatch.finish_reasons
        return [reasons.get(choice, "abort") for choice in range(self.answers.choices)]

    def unix_ns(self, at_s: float) -> int:
        """A time on time.perf_counter as nanoseconds since 1970."""
        return int(at_s * 1e9) + self.epoch_ns


Observer = Callable[[Account], None]


def tell(observers: Sequence[Observer], request: web.Request, route: str, status: int) -> None:
    account = Account(
        id=request[REQUEST_ID],
        route=route,
        method=request.method,
        status=status,
        headers=request.headers,
        received_s=request[RECEIVED_S],
        ended_s=time.perf_counter(),
        answers=request.get(ANSWERS),
        error=request.get(REFUSED),
    )
    for observer in observers:
        observer(account)
