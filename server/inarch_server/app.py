"""The routes of the server, around one engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from inarch_server import info, live, page, responses
from inarch_server.body import MAX_BODY_BYTES
from inarch_server.health import Health
from inarch_server.live import ERRORS, RecentErrors
from inarch_server.metrics import Metrics
from inarch_server.middleware import MIDDLEWARES, show_id
from inarch_server.native_routes import native_routes
from inarch_server.observers import asked_for
from inarch_server.openai_chat import chat_completions
from inarch_server.openai_completions import completions
from inarch_server.responses_store import RESPONSES, ResponseStore
from inarch_server.service import SERVICE, Service
from inarch_server.sessions import SESSIONS, Sessions
from inarch_server.tally import METRICS_DIR
from inarch_server.turnstile import TURNSTILE, Turnstile

if TYPE_CHECKING:
    from inarch.config import EngineConfig
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.account import Observer


def make_app(engine: AsyncEngine, config: EngineConfig) -> web.Application:
    """An application that serves `engine`, which must have been entered.

    Run it with `handler_cancellation=True`: that is how a request ends when its client goes away.
    """
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=MAX_BODY_BYTES)
    folder = os.environ.get(METRICS_DIR)
    metrics = Metrics(engine.info, Path(folder) if folder else None)
    errors = app[ERRORS] = RecentErrors()
    observers: list[Observer] = [errors, *asked_for(app, engine, config)]
    app[SERVICE] = Service(engine, config, metrics, Health(engine, metrics), observers)
    app[TURNSTILE] = Turnstile()
    app[RESPONSES] = ResponseStore()
    app[SESSIONS] = Sessions()
    app.on_response_prepare.append(show_id)
    app.add_routes(
        [
            web.get("/", page.page),
            web.get("/static/{name}", page.static),
            web.get("/live", live.live),
            web.get("/kernels", live.kernels),
            web.get("/cache_tree", live.cache_tree),
            web.get("/health", info.health),
            web.get("/health_generate", info.health_generate),
            web.get("/metrics", info.metrics),
            web.get("/v1/models", info.models),
            web.get("/v1/models/{id:.+}", info.model),
            web.post("/v1/chat/completions", chat_completions),
            web.post("/v1/completions", completions),
            web.post("/v1/responses", responses.create),
            web.get("/v1/responses/{id}", responses.retrieve),
            web.delete("/v1/responses/{id}", responses.delete),
            web.post("/v1/responses/{id}/cancel", responses.cancel),
            *native_routes(),
        ]
    )
    return app
