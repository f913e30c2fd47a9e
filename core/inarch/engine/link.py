"""A front end's connection to one incarnation of the engine.

With a new incarnation comes a new connection, to another address and under another name: nothing of
the old one can be mistaken for the new one's.

The socket is ZeroMQ's plain one, watched by the event loop: zmq.asyncio takes several times as long for
each message.
"""

from __future__ import annotations

import asyncio
import os

import zmq

from inarch.engine.journal import CELL_BYTES, Incarnation
from inarch.engine.messages import FromEngine, ToEngine, decode_from_engine, encode


class Link:
    def __init__(self, engine: Incarnation) -> None:
        """Connect, in a running event loop; the engine need not listen yet."""
        self.engine = engine
        self.name = os.urandom(CELL_BYTES)  # as the engine and its journal call this front end
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, self.name)
        for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):
            self._socket.setsockopt(option, 0)
        self._socket.connect(engine.address)
        self._news: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._look)

    def send(self, message: ToEngine) -> None:
        """Queue a message."""
        self._socket.send(encode(message), zmq.NOBLOCK)
        self._look()  # sending may have used up the signal of a message that has come

    async def receive(self) -> FromEngine:
        """The next message, for one task."""
        while True:
            try:
                message: FromEngine = decode_from_engine(self._socket.recv(zmq.NOBLOCK))
                return message
            except zmq.Again:
                self._news = self._loop.create_future()
                await self._news

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _look(self) -> None:
        """Wake who waits. The descriptor stays readable until somebody asks why."""
        has_come = int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN
        if has_come and self._news is not None and not self._news.done():
            self._news.set_result(None)
