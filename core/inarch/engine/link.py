"""A front end's connection to one incarnation of the engine.

With a new incarnation comes a new connection, to another address and under another name: nothing of
the old one can be mistaken for the new one's.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable

import zmq
import zmq.asyncio

from inarch.engine.journal import CELL_BYTES, Incarnation
from inarch.engine.messages import FromEngine, ToEngine, decode_from_engine, encode


class Link:
    def __init__(self, engine: Incarnation) -> None:
        """Connect; the engine need not listen yet."""
        self.engine = engine
        self.name = os.urandom(CELL_BYTES)  # as the engine and its journal call this front end
        self._socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, self.name)
        for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):
            self._socket.setsockopt(option, 0)
        self._socket.connect(engine.address)

    def send(self, message: ToEngine) -> Awaitable[object]:
        """Queue a message; it goes even if this is not awaited."""
        return self._socket.send(encode(message))

    async def receive(self) -> FromEngine:
        message: FromEngine = decode_from_engine(await self._socket.recv())
        return message

    def close(self) -> None:
        self._socket.close()
