"""Keeps an engine process going: starts it, sees when it ends or hangs, and starts another one.

It speaks no word with the engine: that it is ready, or why it cannot start, comes through a pipe,
and that it goes on stands in its journal. So whoever keeps one needs neither torch nor ZeroMQ.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import Process
from typing import NoReturn, Protocol

import msgspec

import inarch.errors
from inarch.config import EngineConfig, dump
from inarch.engine.journal import Incarnation, Journal
from inarch.engine.killing import kill
from inarch.errors import EngineDeadError, InarchError

log = logging.getLogger("inarch.engine")

MOST_FAILURES = 5  # engines in a row that end without having made a token
LONGEST_PAUSE_S = 30.0  # before another start
CHECK_S = 0.5  # how often to look whether the engine goes on
KEPT_JOURNALS = 3  # front ends may still read those of the last engines


READY = b"ready\n"


class StartFailed(msgspec.Struct, frozen=True):
    """What an engine writes into the pipe instead of READY, as a line of JSON."""

    error: str  # class name in inarch.errors
    message: str


class Audience(Protocol):
    """Who must know which engine there is."""

    def engine_begins(self, engine: Incarnation) -> None:
        """It is there, and will answer as soon as it is ready."""

    def engine_ended(self, why: str, *, blameless: bool) -> None:
        """It is gone; another one will come. blameless: it was meant to end."""


class Keeper:
    """Call `start`, then run `keep` for as long as there shall be an engine, then `stop`."""

    def __init__(self, config: EngineConfig, audience: Audience) -> None:
        """config: resolved."""
        self._config, self._audience = config, audience
        self.folder = tempfile.mkdtemp(prefix="inarch-")  # only this user may enter it
        self._number = 0
        self._child: Process | None = None
        self._renewing = False

    @property
    def pid(self) -> int:
        """Of the engine process that is there, or was there last."""
        assert self._child is not None
        return self._child.pid

    async def start(self) -> None:
        """Start an engine and wait until it can answer. Raises InarchError: why it cannot."""
        self._number += 1
        engine = self._engine = Incarnation(self.folder, self._number)
        Incarnation(self.folder, self._number - KEPT_JOURNALS).journal.unlink(missing_ok=True)
        hears, says = os.pipe()
        try:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "inarch.engine.process",
                self.folder, str(engine.number), str(os.getpid()), str(says),
                stdin=asyncio.subprocess.PIPE, pass_fds=(says,), process_group=0,
            )  # fmt: skip
        finally:
            os.close(says)
        assert self._child.stdin is not None
        self._child.stdin.write(dump(self._config))
        self._child.stdin.close()
        self._audience.engine_begins(engine)
        try:
            words = await _read(hears)
        except asyncio.CancelledError:
            self._kill()
            raise
        if words == READY:
            self._journal = Journal(engine.journal)
            return
        code = await self._child.wait()
        if words:
            failed = msgspec.json.decode(words, type=StartFailed)
            raise getattr(inarch.errors, failed.error, InarchError)(failed.message)
        raise EngineDeadError(
            f"the engine process ended with code {code} while it started; its messages are above"
        )

    async def keep(self) -> NoReturn:
        """Start another engine whenever one has ended. Raises EngineDeadError when it is no use."""
        failures = 0
        while True:
            why = await self._until_it_ends()
            failures = 0 if self._journal.tokens or self._renewing else failures + 1
            self._gone(why)
            while not await self._started_again(failures):
                failures += 1

    def renew(self) -> None:
        """End the engine, so that `keep` starts another one."""
        self._renewing = True
        self._kill()

    async def stop(self) -> None:
        """End the process and clean up."""
        self._kill()
        if self._child is not None:
            await self._child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _kill(self) -> None:
        """An engine has nothing to tidy up, and one that hangs would not listen."""
        if self._child is not None:
            kill(self._child)

    async def _started_again(self, failures: int) -> bool:
        if failures >= MOST_FAILURES:
            raise EngineDeadError(
                f"the engine ended {failures} times in a row without making a token; "
                "its messages are above"
            )
        if failures:
            await asyncio.sleep(min(2.0 ** (failures - 1), LONGEST_PAUSE_S))
        try:
            await self.start()
        except InarchError as error:
            log.error("the engine could not be started again: %s", error)
            self._audience.engine_ended(str(error), blameless=True)
            return False
        log.warning("the engine is back")
        return True

    async def _until_it_ends(self) -> str:
        """Wait until the engine ends, by itself or for having hung; why it did."""
        assert self._child is not None
        ended = asyncio.create_task(self._child.wait())
        beats, moved_s = self._journal.beats, time.monotonic()
        while not ended.done():
            await asyncio.wait({ended}, timeout=CHECK_S)
            if self._journal.beats != beats:
                beats, moved_s = self._journal.beats, time.monotonic()
            elif time.monotonic() - moved_s > self._config.engine_timeout:
                self._kill()
                await ended
                return f"it finished no step in {self._config.engine_timeout:g} s"
        return f"its process ended with code {ended.result()}"

    def _gone(self, why: str) -> None:
        if self._renewing:
            log.info("the engine is started anew, as asked")
        else:
            log.error("the engine is gone: %s; its messages are above. It is started again", why)
        self._audience.engine_ended(why, blameless=self._renewing)
        self._renewing = False


async def _read(pipe: int) -> bytes:
    """The one line that comes through a pipe; b"" if its other end is closed without any."""
    reader = asyncio.StreamReader()
    with os.fdopen(pipe, "rb", buffering=0) as file:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), file
        )
        try:
            return await reader.readline()
        finally:
            transport.close()
