"""A front-end process: HTTP on one side, the engine on the other. The supervisor starts it.

    python -m inarch_server.process.worker LISTENER CONTROL

with the descriptors of two sockets, and the configuration on standard input.

It ends when it is told to, and when the supervisor has gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys

from inarch.config import EngineConfig, load
from inarch.engine.async_engine import AsyncEngine
from inarch.engine.garbage import settle
from inarch.errors import InarchError
from inarch_server.process.control import (
    Control,
    Drain,
    Draining,
    EngineBegins,
    EngineEnded,
    Failed,
    NoMoreEngine,
    Ready,
    Retire,
    StopNow,
)
from inarch_server.process.serve import serve
from inarch_server.process.stopping import Stop

log = logging.getLogger("inarch.server")


def main(listener: int, control: int) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor's to handle
    config = load(sys.stdin.buffer.read())
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Every connection is an open file, and shells allow a program 1024 of them unless it asks.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ends = socket.socket(fileno=listener), socket.socket(fileno=control)
    return asyncio.run(_run(config, *ends))


async def _run(config: EngineConfig, listener: socket.socket, end: socket.socket) -> int:
    control, stop = await Control.over(end), Stop(config.drain_timeout)
    stop.on_signals(signal.SIGTERM)
    stop.starting = asyncio.current_task()
    engine = AsyncEngine(config, kept=True)
    ears = asyncio.create_task(_obey(control, engine, stop))
    try:
        async with engine:
            settle()
            await serve(
                engine, config, listener, stop,
                ready=lambda banner: control.send(Ready(banner)),
                draining=lambda running: control.send(Draining(running)),
            )  # fmt: skip
    except asyncio.CancelledError:
        if not stop.asked.is_set():
            raise
    except InarchError as error:
        control.send(Failed(type(error).__name__, str(error)))
        return 1
    finally:
        ears.cancel()
        await control.close()
    return 0


async def _obey(control: Control, engine: AsyncEngine, stop: Stop) -> None:
    loop, patience_s = asyncio.get_running_loop(), stop.patience_s
    assert patience_s is not None
    async for message in control.messages():
        match message:
            case EngineBegins():
                engine.engine_begins(message.engine)
            case EngineEnded():
                engine.engine_ended(message.why, blameless=message.blameless)
            case NoMoreEngine():
                engine.give_up(message.why)
            case Retire():
                stop.patience_s = None
                stop.ask()
            case Drain() if stop.asked.is_set():  # it retires, and has been patient without end
                loop.call_later(patience_s, stop.insisted.set)
            case Drain():
                stop.ask()
            case StopNow():
                stop.asked.set()
                stop.insisted.set()
    # Nobody is there any more who would start an engine again, or this process.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
