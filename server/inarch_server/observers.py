"""Who is told of every request that is over, as the options ask for: the request log, and traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import TYPE_CHECKING

from aiohttp import web

from inarch.errors import ConfigError
from inarch_server.request_log import RequestLog

if TYPE_CHECKING:
    from inarch.config import EngineConfig
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.account import Observer
    from inarch_server.traces import Traces

OTLP = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


def check(config: EngineConfig) -> None:
    """Raise ConfigError if what the options ask for is not installed; before a model is loaded."""
    for module in OTLP if config.otlp_endpoint is not None else ():
        try:
            import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"--otlp-endpoint: OpenTelemetry is not installed ({error});"
                " pip install 'inarch[otel]'"
            ) from error


def asked_for(app: web.Application, engine: AsyncEngine, config: EngineConfig) -> list[Observer]:
    """The observers that `config` asks for; they end with the application."""
    observers: list[Observer] = []
    if config.log_requests:
        observers.append(RequestLog(engine.tokenizer, with_text=config.log_request_text))
    if config.otlp_endpoint is not None:
        check(config)
        from inarch_server.traces import Traces, otlp_exporter

        traces = Traces(otlp_exporter(config.otlp_endpoint), engine.info.name)
        app.cleanup_ctx.append(_closing(traces))
        observers.append(traces)
    return observers


def _closing(traces: Traces) -> Callable[[web.Application], AsyncIterator[None]]:
    async def context(_: web.Application) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(traces.close)

    return context
