"""Who is told of every request that is over, as the options ask for: the request log, and traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from inarch_server.extras import check_extras
from inarch_server.watching.request_log import RequestLog

if TYPE_CHECKING:
    from inarch.config import EngineConfig
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.watching.account import Observer
    from inarch_server.watching.traces import Traces


def asked_for(app: web.Application, engine: AsyncEngine, config: EngineConfig) -> list[Observer]:
    """The observers that `config` asks for; they end with the application."""
    observers: list[Observer] = []
    if config.log_requests:
        observers.append(RequestLog(engine.tokenizer, with_text=config.log_request_text))
    if config.otlp_endpoint is not None:
        check_extras(config)
        from inarch_server.watching.traces import Traces, otlp_exporter

        traces = Traces(otlp_exporter(config.otlp_endpoint), engine.info.name)
        app.cleanup_ctx.append(_closing(traces))
        observers.append(traces)
    return observers


def _closing(traces: Traces) -> Callable[[web.Application], AsyncIterator[None]]:
    async def context(_: web.Application) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(traces.close)

    return context
