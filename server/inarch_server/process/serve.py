"""One front end's life with its clients: let them in once a token was made, serve, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from inarch.version import __version__
from inarch_server.app import make_app
from inarch_server.process import listening
from inarch_server.service import SERVICE, Service

if TYPE_CHECKING:
    from inarch.config import EngineConfig
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.process.stopping import Stop

log = logging.getLogger("inarch.server")

LAST_WRITE_S = 2.0  # for answers that are finished, but not yet with the client
# Connections accepted in one turn of the event loop: all that wait would go to whoever wakes first.
ACCEPTED_AT_ONCE = 1
# For who has connected and not sent a request yet, or is about to send one on a connection that
# idles: both would be refused although another front end is there for them.
HAND_OVER_S = 1.0


async def serve(
    engine: AsyncEngine,
    config: EngineConfig,
    listener: socket.socket,
    stop: Stop,
    *,
    ready: Callable[[str], object],
    draining: Callable[[int], object],
) -> None:
    """Serve an engine that has started on a bound socket, until `stop` is asked for, and drain.

    ready: called with what to tell the user, once clients are let in. draining: with the number of
    requests that run when no more are.
    """
    app = make_app(engine, config)
    service = app[SERVICE]
    await service.health.first()
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        shutdown_timeout=LAST_WRITE_S,
        access_log=log if config.log_level == "debug" else None,
    )

    async def say_goodbye(_: web.Request, response: web.StreamResponse) -> None:
        if stop.asked.is_set():
            response.force_close()
            response.headers["Connection"] = "close"

    app.on_response_prepare.append(say_goodbye)
    await runner.setup()
    site = web.SockSite(runner, listener, backlog=ACCEPTED_AT_ONCE)
    try:
        await _listen(site, listener)
        stop.starting = None
        ready(banner(service, listener))
        await stop.asked.wait()
        await _accept_no_more(site, listener)
        draining(len(service.running))
        await _drain(service, runner, stop)
    finally:
        await runner.cleanup()


async def _drain(service: Service, runner: web.AppRunner, stop: Stop) -> None:
    """Wait for requests that run, but not longer than there is patience."""
    insisted = asyncio.create_task(stop.insisted.wait())
    if stop.patience_s is None:
        await _hand_over(service, insisted)
    if runner.server is not None:
        runner.server.pre_shutdown()  # closes connections that idle
    if running := set(service.running):
        finished = asyncio.create_task(asyncio.wait(running, timeout=stop.patience_s))
        await asyncio.wait([finished, insisted], return_when=asyncio.FIRST_COMPLETED)
        service.out_of_patience.set()
        for task in (finished, *running):
            task.cancel()
    insisted.cancel()


async def _hand_over(service: Service, insisted: asyncio.Task[bool]) -> None:
    """Give each connection time for the request that its client is about to send on it.

    Answers that have begun could not say that their connection closes behind them.
    """
    if begun := set(service.running):
        ended = asyncio.create_task(asyncio.wait(begun))
        await asyncio.wait([ended, insisted], return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
    await asyncio.wait([insisted], timeout=HAND_OVER_S)


async def _listen(site: web.SockSite, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    try:
        await site.start()
        listener.listen(listening.BACKLOG)  # `site` took the other number for both
    except OSError as error:
        raise listening.cannot_listen(host, port, error) from error


async def _accept_no_more(site: web.SockSite, listener: socket.socket) -> None:
    """Closes the listener; asyncio drops whom it has accepted in the very turn of its loop."""
    asyncio.get_running_loop().remove_reader(listener)
    await asyncio.sleep(0)
    await site.stop()


# What to try, by what a model makes.
TALK = ("/v1/chat/completions", '{"messages": [{"role": "user", "content": "Hello"}]}')
EMBED = ("/v1/embeddings", '{"input": "Hello"}')
CLASSIFY = ("/v1/classify", '{"input": "Hello"}')


def banner(service: Service, listener: socket.socket) -> str:
    """What a person needs to know of a server that is ready."""
    info, url = service.engine.info, listening.url(listener)
    path, body = TALK if info.head.generates else CLASSIFY if info.head.labels else EMBED
    key = " -H 'Authorization: Bearer KEY'" if service.config.api_key is not None else ""
    weights = f", weights in {info.weights}" if info.weights else ""
    return (
        f"\nInarch {__version__} serves {service.model} at {url}\n\n"
        f"  backend  {info.backend} on {info.device}, {info.dtype}{weights}\n"
        f"  context  {info.context_length:,} tokens\n"
        f"  memory   KV cache of {info.kv_tokens:,} tokens in {info.kv_dtype}\n"
        f"  try      open {url} in a browser, or\n"
        f"           curl {url}{path} -H 'Content-Type: application/json'{key} \\\n"
        f"             -d '{body}'\n"
    )
