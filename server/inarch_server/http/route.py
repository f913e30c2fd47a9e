"""One route of the server: what is sent to it, and what comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from aiohttp import web

from inarch_server.http.body import Body

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Route:
    """One path with what is sent to it and what comes back.

    answer: name of the schema of its JSON in openapi_answers, or a media type if it is no JSON.
    body_needed: whether a request must have one. streams: whether the body's `stream` can make it
    answer piece by piece. also: further paths and methods that do the same.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answer: str
    body: type[Body] | None = None
    body_needed: bool = True
    streams: bool = False
    also: Sequence[tuple[str, str]] = ()

    @property
    def ways(self) -> Iterator[tuple[str, str]]:
        """Method and path."""
        yield self.method, self.path
        yield from self.also
