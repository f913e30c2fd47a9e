"""The life of a server process: take the port, start the engine, serve, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from typing import TYPE_CHECKING, Any

import click
from aiohttp import web

from inarch.engine.async_engine import AsyncEngine
from inarch.engine.garbage import settle
from inarch.errors import ConfigError
from inarch.version import __version__
from inarch_server import observers
from inarch_server.app import make_app
from inarch_server.service import SERVICE, Service

if TYPE_CHECKING:
    from inarch.config import EngineConfig

log = logging.getLogger("inarch.server")

BACKLOG = 1024  # connections that may wait to be accepted
LAST_WRITE_S = 2.0  # for answers that are finished, but not yet with the client


def run(config: EngineConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises InarchError if the server cannot start."""
    observers.check(config)
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(_run(config))


async def _run(config: EngineConfig) -> None:
    stop = Stop()
    stop.on_signals()
    stop.starting = asyncio.current_task()
    # The port is taken before the model is loaded: minutes of loading must not end in "in use".
    with bind(config.host, config.port) as listener:
        try:
            async with AsyncEngine(config) as engine:
                settle()
                await serve(engine, config, listener, stop)
        except asyncio.CancelledError:
            if not stop.asked.is_set():
                raise


async def serve(
    engine: AsyncEngine, config: EngineConfig, listener: socket.socket, stop: Stop
) -> None:
    """Serve an engine that has started on a bound socket, until `stop` is asked for, and drain."""
    app = make_app(engine, config)
    service = app[SERVICE]
    await service.health.check(fresh_s=0.0)
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        shutdown_timeout=LAST_WRITE_S,
        access_log=log if config.log_level == "debug" else None,
    )
    await runner.setup()
    site = web.SockSite(runner, listener, backlog=BACKLOG)
    try:
        await _listen(site, listener)
        stop.starting = None
        click.echo(banner(service, listener))
        await stop.asked.wait()
        await site.stop()
        await _drain(service, runner, stop)
    finally:
        await runner.cleanup()


async def _drain(service: Service, runner: web.AppRunner, stop: Stop) -> None:
    """Wait for requests that run, but not longer than the user has patience."""
    if runner.server is not None:
        runner.server.pre_shutdown()  # closes connections that idle
    running = set(service.running)
    if running:
        seconds = service.config.drain_timeout
        click.echo(
            f"waiting up to {seconds:g} s for {len(running)} running requests;"
            " a second signal stops at once"
        )
        finished = asyncio.create_task(asyncio.wait(running, timeout=seconds))
        insisted = asyncio.create_task(stop.insisted.wait())
        ends = asyncio.FIRST_COMPLETED
        await asyncio.wait([finished, insisted], return_when=ends)
        service.out_of_patience.set()
        for task in (finished, insisted, *running):
            task.cancel()


class Stop:
    """What a user may ask for: first to finish and stop, then to stop at once."""

    def __init__(self) -> None:
        self.asked, self.insisted = asyncio.Event(), asyncio.Event()
        # Who is still starting: there is nothing to finish yet, so it is just cancelled.
        self.starting: asyncio.Task[Any] | None = None

    def ask(self) -> None:
        if self.asked.is_set():
            self.insisted.set()
        self.asked.set()
        if self.starting is not None:
            self.starting.cancel()

    def on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.ask)


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the port, and does not listen yet: until then clients are refused."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    try:
        # A server that restarts must not wait for the last one's connections to be forgotten.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


async def _listen(site: web.SockSite, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    try:
        await site.start()
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    reason = error.strerror or str(error)
    return ConfigError(
        f"cannot listen on {host} port {port}: {reason};"
        " choose another one with --port or --host, or stop what uses it"
    )


def banner(service: Service, listener: socket.socket) -> str:
    """What a person needs to know of a server that is ready."""
    info, url = service.engine.info, _url(listener)
    return (
        f"\nInarch {__version__} serves {service.model} at {url}\n\n"
        f"  backend  {info.backend} on {info.device}, {info.dtype}\n"
        f"  context  {info.context_length:,} tokens\n"
        f"  memory   KV cache of {info.kv_tokens:,} tokens in {info.kv_dtype}\n"
        f"  try      open {url} in a browser, or\n"
        f"           curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        """             -d '{"messages": [{"role": "user", "content": "Hello"}]}'\n"""
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
