"""Hearing a state's text as it comes, in a thread or in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future

from inarch.lang.events import Event
from inarch.lang.fibers import wait
from inarch.lang.track import Track


class Listening:
    """The events of a variable, or those of all text that is not aside.

    over: nothing more comes. check: raises, once all has come, if something went wrong.
    """

    def __init__(
        self,
        track: Track,
        name: str | None,
        over: Callable[[], bool],
        check: Callable[[str | None], None],
    ) -> None:
        self._track, self._name, self._over, self._check = track, name, over, check
        self._seen = 0

    def __iter__(self) -> Iterator[Event]:
        while (news := self._news()) is not None:
            yield from news
            if not news:
                wait(self._more())

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (news := self._news()) is not None:
            for event in news:
                yield event
            if not news:
                await asyncio.wrap_future(self._more())

    def _more(self) -> Future[None]:
        return self._track.heard(lambda: len(self._track.events) > self._seen or self._over())

    def _news(self) -> list[Event] | None:
        """Those behind the ones that were seen; None: there are none and will be none."""
        ended = self._over()  # asked first: an end has no event
        news = self._track.events[self._seen :]
        self._seen += len(news)
        if news or not ended:
            return [event for event in news if self._is_wanted(event)]
        self._check(self._name)
        return None

    def _is_wanted(self, event: Event) -> bool:
        return not event.aside if self._name is None else event.name == self._name
