"""The first process of a server: it holds the port, and keeps an engine and its front ends alive.

It serves nobody and imports little, so there is little that could end it. SIGTERM and SIGINT: finish
and stop; again: stop at once. SIGHUP: replace all other processes one after the other.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
from collections.abc import Coroutine, Iterable
from tempfile import TemporaryDirectory
from typing import Any

import click

from inarch.config import EngineConfig
from inarch.engine.journal import Incarnation
from inarch.engine.keeper import Keeper
from inarch.engine.resolve import resolve, set_environment
from inarch.errors import InarchError
from inarch.plugins import load_plugins
from inarch_server.extras import check_extras
from inarch_server.process.control import (
    Drain,
    EngineBegins,
    EngineEnded,
    NoMoreEngine,
    Orders,
    Retire,
    StopNow,
)
from inarch_server.process.frontend_child import FrontEnd
from inarch_server.process.listening import bind
from inarch_server.process.stopping import Stop
from inarch_server.watching.tally import METRICS_DIR

log = logging.getLogger("inarch.server")

MOST_FAILURES = 5  # front ends in a row that cannot start
LONGEST_PAUSE_S = 30.0  # before another start
LAST_WORDS_S = 5.0  # for a front end to end after its patience has


def run(config: EngineConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises InarchError if the server cannot start, or go on."""
    check_extras(config)
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(_run(config))


async def _run(config: EngineConfig) -> None:
    stop = Stop(config.drain_timeout)
    stop.on_signals(signal.SIGINT, signal.SIGTERM)
    stop.starting = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGHUP, log.warning, "nothing is replaced: the server is only just starting"
    )
    # The port is taken before the model is loaded: minutes of loading must not end in "in use".
    counts = TemporaryDirectory(prefix="inarch-", ignore_cleanup_errors=True)
    with bind(config.host, config.port) as listener, counts as os.environ[METRICS_DIR]:
        config, backend = resolve(config, load_plugins())
        set_environment(backend)
        try:
            await Supervisor(config, listener, stop).run()
        except asyncio.CancelledError:
            if not stop.asked.is_set():
                raise


class Supervisor:
    """Keeps one engine and `api_workers` front ends; tells those which engine there is."""

    def __init__(self, config: EngineConfig, listener: socket.socket, stop: Stop) -> None:
        """config: resolved."""
        self._config, self._listener, self._stop = config, listener, stop
        self._keeper = Keeper(config, self)
        self._engine: Incarnation | None = None
        self._front_ends: set[FrontEnd] = set()  # those that retire too
        self._tending: set[asyncio.Task[None]] = set()
        self._replacing = asyncio.Lock()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until `stop` is asked for, or it is no use any more: then InarchError is raised."""
        try:
            banner = await self._start()
            self._stop.starting = None
            click.echo(banner)
            await self._until_asked()
            await self._drain()
            if self._failed.done():
                await self._failed
        finally:
            await self._stop_tending(self._tending)
            await asyncio.gather(*(one.stop() for one in self._front_ends))
            await self._keeper.stop()

    # ---- who must know which engine there is ----

    def engine_begins(self, engine: Incarnation) -> None:
        self._engine = engine
        self._tell(EngineBegins(engine))

    def engine_ended(self, why: str, *, blameless: bool) -> None:
        self._engine = None
        self._tell(EngineEnded(why, blameless))

    def _tell(self, message: Orders) -> None:
        for one in self._front_ends:
            one.tell(message)

    # ---- start ----

    async def _start(self) -> str:
        """Start everything at once, and wait until clients are let in; the banner."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keeper.start())
                count = self._config.api_workers
                starting = [group.create_task(self._open()) for _ in range(count)]
        except* InarchError as errors:
            raise errors.exceptions[0] from None
        front_ends = [task.result() for task in starting]
        for one in front_ends:
            self._tend(self._watch(one))
        self._keeping = self._tend(self._keeper.keep())
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGHUP, lambda: self._tend(self._renew())
        )
        return front_ends[0].banner

    async def _open(self) -> FrontEnd:
        """A front end that lets clients in. Raises InarchError: why it cannot."""
        one = await FrontEnd.start(self._config, self._listener)
        self._front_ends.add(one)
        if self._engine is not None:
            one.tell(EngineBegins(self._engine))
        try:
            await one.ready()
        except BaseException:
            await one.stop()
            self._front_ends.discard(one)
            raise
        return one

    # ---- go on ----

    async def _until_asked(self) -> None:
        """Until the user wants the server to stop, or it cannot go on."""
        asked = asyncio.create_task(self._stop.asked.wait())
        either: set[asyncio.Future[Any]] = {asked, self._failed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()

    def _tend(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tending.add(task)
        task.add_done_callback(self._tended)
        return task

    def _tended(self, task: asyncio.Task[None]) -> None:
        self._tending.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._tell(NoMoreEngine(str(error)))
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _watch(self, one: FrontEnd) -> None:
        """Put another one in the place of a front end that ends without having been asked to."""
        code = await one.wait()
        self._front_ends.discard(one)
        if one.retired:
            return
        log.error("a front end ended with code %s; another one takes its place", code)
        for failures in itertools.count(1):
            try:
                self._tend(self._watch(await self._open()))
                return
            except InarchError as error:
                log.error("a front end could not be started: %s", error)
                if failures == MOST_FAILURES:
                    raise
            await asyncio.sleep(min(2.0 ** (failures - 1), LONGEST_PAUSE_S))

    async def _renew(self) -> None:
        """Replace every front end, one after the other, and then the engine."""
        if self._replacing.locked():
            log.warning("all processes are being replaced already")
            return
        async with self._replacing:
            log.info("all processes are replaced, as asked")
            try:
                for old in [one for one in self._front_ends if not one.retired]:
                    self._tend(self._watch(await self._open()))
                    old.retired = True
                    old.tell(Retire())
            except InarchError as error:
                log.error("nothing more is replaced, no new front end could be started: %s", error)
                return
            self._keeper.renew()

    # ---- stop ----

    async def _drain(self) -> None:
        """Let front ends finish what runs, for as long as the user has patience."""
        self._listener.close()
        # An engine that dies is replaced to the last, but nobody else is.
        await self._stop_tending(self._tending - {self._keeping})
        front_ends = list(self._front_ends)
        for one in front_ends:
            one.retired = True
            one.tell(Drain())
        if not front_ends:
            return
        ended = asyncio.create_task(asyncio.wait([one.ended for one in front_ends]))
        if running := sum(await asyncio.gather(*(one.draining() for one in front_ends))):
            click.echo(
                f"waiting up to {self._stop.patience_s:g} s for {running} running requests;"
                " a second signal stops at once"
            )
        insisted = asyncio.create_task(self._stop.insisted.wait())
        patience_s = self._config.drain_timeout + LAST_WORDS_S
        await asyncio.wait(
            {ended, insisted}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
        )
        if insisted.done():
            self._tell(StopNow())
            await asyncio.wait({ended}, timeout=LAST_WORDS_S)
        for task in (ended, insisted):
            task.cancel()

    async def _stop_tending(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        tasks = list(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
