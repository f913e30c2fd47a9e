"""The engine process: a core behind a ZeroMQ socket, told what to do by front ends.

    python -m inarch.engine.process FOLDER NUMBER PARENT_PID PIPE   (configuration on standard input)

It ends when its parent has gone.
"""

from __future__ import annotations

import itertools
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import zmq

from inarch.config import EngineConfig, load
from inarch.engine.control import Control
from inarch.engine.garbage import settle
from inarch.engine.journal import Incarnation, Journal
from inarch.engine.keeper import READY, StartFailed
from inarch.engine.messages import (
    Abort,
    AbortByName,
    FromEngine,
    GetCacheTree,
    GetStats,
    Hello,
    NewRequest,
    Overloaded,
    Ready,
    decode_to_engine,
    encode,
)
from inarch.engine.trials import Trials
from inarch.errors import InarchError

log = logging.getLogger("inarch.engine")
PARENT_CHECK_S = 1.0
COMPILE_POLL_S = (
    0.001  # how often to look whether a grammar is compiled, while nothing else is done
)
SPARE_POLL_S = 0.001  # how often to look whether the running step has ended earlier than expected
# Shapes of steps that are prepared before anyone is told that the engine is ready, and for how long
# more of them are: what is met unprepared, or while another is being prepared, waits longer.
PREPARED = 2
PREPARE_S = 4.0


def main(engine: Incarnation, parent: int, pipe: int) -> int:
    """Build the core and serve it until the parent goes; `pipe` is told how that went."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, or a whole group that is stopped:
        signal.signal(number, signal.SIG_IGN)  # the parent decides when requests are finished
    config = load(sys.stdin.buffer.read())
    logging.basicConfig(
        level=config.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, 1000)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # to hear that a front end has gone
    socket.bind(engine.address)
    try:
        service = Service(config, socket, parent, engine.journal)
    except InarchError as error:
        _say(pipe, msgspec.json.encode(StartFailed(type(error).__name__, str(error))) + b"\n")
        return 1
    except Exception as error:
        log.exception("the engine could not start")
        why = StartFailed("InarchError", f"{type(error).__name__}: {error}{_raised_in(error)}")
        _say(pipe, msgspec.json.encode(why) + b"\n")
        return 1
    settle()
    _say(pipe, READY)
    try:
        service.run()
    except Exception as error:
        log.exception("the engine ends%s", _raised_in(error))
        return 1
    return 0


def _raised_in(error: Exception) -> str:
    """Which plugin is to blame, if one is: a backend's kernels run in every step."""
    from inarch.plugins import culprit, load_plugins

    plugin = culprit(error, load_plugins().records)
    return f" (raised in {plugin.whole_name})" if plugin else ""


def _say(pipe: int, line: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(pipe, "wb") as file:  # the parent may have gone
        file.write(line)


class Service:
    """Feeds messages to the core and sends its outputs to the clients they belong to."""

    def __init__(
        self, config: EngineConfig, socket: zmq.Socket[bytes], parent: int, journal: Path
    ) -> None:
        from inarch.engine.build import build
        from inarch.plugins import load_plugins
        from inarch.selection import choose_backend

        plugins = load_plugins()
        backend = choose_backend(plugins, config.backend)
        self._socket = socket
        self._built = build(config, backend, plugins)
        self._core = self._built.core
        self._clients: set[bytes] = set()
        table = self._core.scheduler.pool.table
        self._journal = Journal(journal, table.null_row)
        table.holders = self._journal.holders
        self._trials = Trials(self._journal, self._core.add)
        self._control = Control(self._core, self._send, self._send_all, self._built.prefixes)
        self._unprepared = self._prepare_first()
        self._parent = parent

    def run(self) -> None:
        """Step while there is work, prepare or sleep while there is none, end with the parent."""
        checked = 0.0
        while True:
            self._journal.beat()
            if time.monotonic() - checked > PARENT_CHECK_S:
                checked = time.monotonic()
                if os.getppid() != self._parent:
                    return
            if not self._core.has_work and not self._has_message():
                continue
            if spare := self._core.spare():
                # The socket's own poll sleeps whole milliseconds.
                select.select([self._socket.FD], [], [], min(spare, SPARE_POLL_S))
            for client, payload in self._received():
                self._handle(client, payload)
            if self._core.has_work and not self._core.spare():
                for client, output in self._core.step().items():
                    self._journal.count(len(output.tokens))
                    self._trials.heard(client, output)
                    self._send(client, output)
                for client, refused in self._core.take_refused():
                    self._trials.leave(client, refused.handle)
                    self._send(client, refused)
                self._control.stepped()

    def _prepare_first(self) -> bool:
        """Prepare what can be before anyone waits; whether some shapes are left for later."""
        deadline = time.monotonic() + PREPARE_S
        for count in itertools.count():
            if count >= PREPARED and time.monotonic() >= deadline:
                return True
            if not self._core.prepare():
                break
        return False

    def _has_message(self) -> bool:
        """Wait for a message for a while, which is spent on one shape if any is unprepared."""
        if not self._unprepared:
            patience = COMPILE_POLL_S if self._core.compiling else PARENT_CHECK_S
            return bool(self._socket.poll(int(patience * 1000)))
        if self._socket.poll(0):
            return True
        self._unprepared = self._core.prepare()
        return False

    def _received(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            try:
                client, payload = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            yield client, payload

    def _handle(self, client: bytes, payload: bytes) -> None:
        try:
            message: Any = decode_to_engine(payload)
        except msgspec.MsgspecError as error:
            log.error("dropped a malformed message: %s", error)
            return
        match message:
            case NewRequest():
                self._take(message, client)
            case Abort():
                self._core.abort(message, client)
                self._trials.leave(client, message.handle)
            case AbortByName():
                self._send_all(message)
            case Hello():
                self._clients.add(client)
                self._send(client, Ready(info=self._built.info))
            case GetStats():
                self._send(client, self._core.stats(message.ticket))
            case GetCacheTree():
                self._send(client, self._core.cache_tree(message.ticket, message.nodes))
            case _:
                self._control.obey(client, message)

    def _take(self, message: NewRequest, client: bytes) -> None:
        if message.suspect:
            self._trials.join(message, client)
        elif not self._core.add(message, client):
            waiting = self._core.waiting
            self._send(client, Overloaded(handle=message.handle, waiting=waiting))

    def _send_all(self, message: FromEngine) -> None:
        for client in list(self._clients):
            self._send(client, message)

    def _send(self, client: bytes, message: FromEngine) -> None:
        try:
            self._socket.send_multipart([client, encode(message)])
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._forget(client)

    def _forget(self, client: bytes) -> None:
        """A front end has gone: nobody waits for its samples any more."""
        self._clients.discard(client)
        for handle in self._core.handles(client):
            self._core.abort(Abort(handle=handle), client)
        self._trials.forget(client)


if __name__ == "__main__":
    folder, number, parent, pipe = sys.argv[1:]
    sys.exit(main(Incarnation(folder, int(number)), int(parent), int(pipe)))
