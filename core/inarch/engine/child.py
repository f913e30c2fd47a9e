"""The engine process as its parent holds it: started, listened to, and stopped in the end."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import Awaitable

import zmq
import zmq.asyncio

import inarch.errors
from inarch.config import EngineConfig
from inarch.engine import process
from inarch.engine.messages import (
    FromEngine,
    Hello,
    ModelInfo,
    Ready,
    StartFailed,
    ToEngine,
    decode_from_engine,
    encode,
)
from inarch.errors import EngineDeadError, InarchError

STOP_PATIENCE_S = 5.0
LAST_WORDS_S = 1.0  # for a message that was sent right before the process ended


class EngineChild:
    """A process that serves one core, and the socket to it."""

    def __init__(self, ended: Process, socket: zmq.asyncio.Socket, folder: str) -> None:
        self._process, self._socket, self._folder = ended, socket, folder

    @classmethod
    async def start(cls, config: EngineConfig) -> EngineChild:
        """Start a process for a resolved configuration; `handshake` waits until it can answer."""
        folder = tempfile.mkdtemp(prefix="inarch-")  # only this user may enter it
        address = f"ipc://{folder}/engine"
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "inarch.engine.process", address, str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert child.stdin is not None
        child.stdin.write(process.dump(config))
        child.stdin.close()
        socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, os.urandom(8))
        for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):
            socket.setsockopt(option, 0)
        socket.connect(address)
        return cls(child, socket, folder)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def handshake(self) -> ModelInfo:
        """Wait until the engine can answer. Raises InarchError: what it said, or that it ended."""
        await self.send(Hello())
        ended = asyncio.create_task(self._process.wait())
        answer = asyncio.create_task(self.receive())
        await asyncio.wait({ended, answer}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            await asyncio.wait({answer}, timeout=LAST_WORDS_S)
        if not answer.done():
            answer.cancel()
            raise EngineDeadError(
                f"the engine process ended with code {ended.result()} while it started; "
                "its messages are above"
            )
        ended.cancel()
        message = answer.result()
        if isinstance(message, StartFailed):
            await self._process.wait()
            raise getattr(inarch.errors, message.error, InarchError)(message.message)
        assert isinstance(message, Ready)
        return message.info

    def send(self, message: ToEngine) -> Awaitable[object]:
        """Queue a message; it goes even if this is not awaited."""
        return self._socket.send(encode(message))

    async def receive(self) -> FromEngine:
        message: FromEngine = decode_from_engine(await self._socket.recv())
        return message

    async def wait(self) -> int:
        """Until the process ends: its exit code."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End the process, by force if need be, and clean up."""
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_PATIENCE_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)
