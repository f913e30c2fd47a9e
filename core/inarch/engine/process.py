"""The engine process: a core behind a ZeroMQ socket, told what to do by front ends.

    python -m inarch.engine.process ADDRESS PARENT_PID   (configuration as JSON on standard input)

It ends when its parent has gone, or on SIGTERM.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import zmq

from inarch.config import EngineConfig, from_mapping
from inarch.engine.garbage import settle
from inarch.engine.messages import (
    Abort,
    ClearCache,
    Cleared,
    FromEngine,
    GetStats,
    Hello,
    NewRequest,
    Overloaded,
    Ready,
    StartFailed,
    decode_to_engine,
    encode,
)
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


def dump(config: EngineConfig) -> bytes:
    """A configuration as it travels to the process."""
    return json.dumps(dataclasses.asdict(config)).encode()


def main(address: str, parent: int) -> int:
    """Build the core and serve it until the parent goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the front end's to handle
    config = from_mapping(json.load(sys.stdin))
    logging.basicConfig(
        level=config.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, 1000)
    socket.bind(address)
    try:
        service = Service(config, socket, parent)
    except InarchError as error:
        _report_failure(socket, parent, type(error).__name__, str(error))
        return 1
    except Exception as error:
        log.exception("the engine could not start")
        _report_failure(socket, parent, "InarchError", f"{type(error).__name__}: {error}")
        return 1
    settle()
    service.run()
    return 0


def _report_failure(socket: zmq.Socket[bytes], parent: int, error: str, message: str) -> None:
    while not socket.poll(int(PARENT_CHECK_S * 1000)):
        if os.getppid() != parent:
            return
    client, _ = socket.recv_multipart()
    socket.send_multipart([client, encode(StartFailed(error=error, message=message))])
    socket.close()
    zmq.Context.instance().term()


class Service:
    """Feeds messages to the core and sends its outputs to the clients they belong to."""

    def __init__(self, config: EngineConfig, socket: zmq.Socket[bytes], parent: int) -> None:
        from inarch.engine.build import build
        from inarch.plugins import load_plugins
        from inarch.selection import choose_backend

        plugins = load_plugins()
        backend = choose_backend(plugins, config.backend)
        self._socket = socket
        self._built = build(config, backend, plugins)
        self._core = self._built.core
        self._unprepared = self._prepare_first()
        self._parent = parent

    def run(self) -> None:
        """Step while there is work, prepare or sleep while there is none, end with the parent."""
        checked = 0.0
        while True:
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
                    self._send(client, output)
                for client, refused in self._core.take_refused():
                    self._send(client, refused)

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
                if not self._core.add(message, client):
                    waiting = self._core.waiting
                    self._send(client, Overloaded(handle=message.handle, waiting=waiting))
            case Abort():
                self._core.abort(message, client)
            case Hello():
                self._send(client, Ready(info=self._built.info))
            case GetStats():
                self._send(client, self._core.stats(message.ticket))
            case ClearCache():
                pages = self._core.scheduler.clear_cache()
                self._send(client, Cleared(ticket=message.ticket, pages=pages))

    def _send(self, client: bytes, message: FromEngine) -> None:
        self._socket.send_multipart([client, encode(message)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
