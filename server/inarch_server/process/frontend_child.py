"""A front-end process as the supervisor holds it: started, listened to, and stopped in the end."""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio.subprocess import PIPE, Process

import inarch.errors
from inarch.config import EngineConfig, dump
from inarch.engine.killing import kill
from inarch.errors import InarchError
from inarch_server.process.control import Control, Draining, Failed, Orders, Ready


class FrontEnd:
    """A process and the control socket to it."""

    def __init__(self, process: Process, control: Control) -> None:
        self._process, self._control = process, control
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Ready | Failed | None] = loop.create_future()
        self._draining: asyncio.Future[int] = loop.create_future()
        self.ended = asyncio.create_task(self._listen())
        self.retired = False  # it is meant to end

    @classmethod
    async def start(cls, config: EngineConfig, listener: socket.socket) -> FrontEnd:
        """Start a process for a resolved configuration, on a bound socket."""
        ours, theirs = socket.socketpair()
        control = await Control.over(
            ours
        )  # first: nothing may come between a process and its owner
        try:
            descriptors = listener.fileno(), theirs.fileno()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "inarch_server.process.worker", *map(str, descriptors),
                stdin=PIPE, pass_fds=descriptors, process_group=0,
            )  # fmt: skip
        finally:
            theirs.close()
        assert process.stdin is not None
        process.stdin.write(dump(config))
        process.stdin.close()
        return cls(process, control)

    @property
    def banner(self) -> str:
        """What it told the user when it was ready."""
        report = self._ready.result()
        assert isinstance(report, Ready)
        return report.banner

    def tell(self, message: Orders) -> None:
        self._control.send(message)

    async def ready(self) -> None:
        """Wait until it lets clients in. Raises InarchError: what it said, or that it ended."""
        report = await asyncio.shield(self._ready)
        if isinstance(report, Failed):
            raise getattr(inarch.errors, report.error, InarchError)(report.message)
        if report is None:
            raise InarchError(
                f"a front-end process ended with code {await self.wait()} while it started; "
                "its messages are above"
            )

    async def draining(self) -> int:
        """Wait until it lets nobody in any more: the requests that still run."""
        return await self._draining

    async def wait(self) -> int:
        """Until the process ends: its exit code."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End the process by force, if it is there."""
        kill(self._process)
        await asyncio.shield(self.ended)

    async def _listen(self) -> None:
        async for report in self._control.messages():
            match report:
                case Ready() | Failed() if not self._ready.done():
                    self._ready.set_result(report)
                case Draining():
                    self._draining.set_result(report.running)
        if not self._ready.done():
            self._ready.set_result(None)
        if not self._draining.done():
            self._draining.set_result(0)
        await self._control.close()
        await self.wait()
