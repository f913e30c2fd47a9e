"""Questions to the engine, and orders: each has a ticket, by which its reply is known."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TypeVar

from inarch.engine.messages import (
    CacheTree,
    Cleared,
    Done,
    GetCacheTree,
    GetStats,
    Order,
    Prefixed,
    Stats,
)
from inarch.errors import EngineDeadError

Question = GetStats | GetCacheTree | Order
Reply = Stats | Cleared | CacheTree | Done | Prefixed
ReplyT = TypeVar("ReplyT", Stats, Cleared, CacheTree, Done, Prefixed)


class Replies:
    """What is awaited of the engine that is there."""

    def __init__(self, send: Callable[[Question], None]) -> None:
        self._send = send
        self._tickets = itertools.count(1)
        self._awaited: dict[int, asyncio.Future[Reply]] = {}

    async def ask(self, kind: type[ReplyT], question: Callable[[int], Question]) -> ReplyT:
        """Send what `question` makes of a ticket; the reply. Raises EngineDeadError."""
        ticket = next(self._tickets)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._awaited[ticket] = future
        try:
            self._send(question(ticket))
            reply = await future
        finally:
            del self._awaited[ticket]
        assert isinstance(reply, kind)
        return reply

    def hear(self, reply: Reply) -> None:
        future = self._awaited.get(reply.ticket)
        if future is not None and not future.done():  # who asked may have been cancelled
            future.set_result(reply)

    def fail(self, why: str) -> None:
        """The engine is gone, and will not reply."""
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(EngineDeadError(why))
