"""What the supervisor and a front end tell each other: lines of JSON over a pair of sockets.

The pair also tells each of them that the other one has ended.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec

from inarch.engine.journal import Incarnation


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages; the class name is the tag."""


# ---- supervisor to front end ----


class EngineBegins(Message, frozen=True):
    engine: Incarnation


class EngineEnded(Message, frozen=True):
    """Another one will come. blameless: it was meant to end."""

    why: str
    blameless: bool


class NoMoreEngine(Message, frozen=True):
    why: str


class Retire(Message, frozen=True):
    """Another front end has taken the place: accept no more, finish what there is, and end."""


class Drain(Message, frozen=True):
    """The server stops: as Retire, but only for as long as the user has patience."""


class StopNow(Message, frozen=True):
    """The user has none."""


# ---- front end to supervisor ----


class Ready(Message, frozen=True):
    """It accepts connections."""

    banner: str


class Failed(Message, frozen=True):
    """It cannot start."""

    error: str  # class name in inarch.errors
    message: str


class Draining(Message, frozen=True):
    """It accepts no more connections."""

    running: int  # requests


Orders = EngineBegins | EngineEnded | NoMoreEngine | Retire | Drain | StopNow
Reports = Ready | Failed | Draining

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Orders | Reports).decode


class Control:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, end: socket.socket) -> Control:
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: Orders | Reports) -> None:
        """Does not wait; nobody hears it if the other end has gone."""
        if not self._writer.is_closing():
            self._writer.write(_encode(message) + b"\n")

    async def messages(self) -> AsyncIterator[Orders | Reports]:
        """Until the other end has gone."""
        with suppress(ConnectionError):  # it had not read all before it ended
            while line := await self._reader.readline():
                yield _decode(line)

    async def close(self) -> None:
        """After what was sent has gone out."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
