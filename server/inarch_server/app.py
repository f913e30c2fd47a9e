"""The application: routes and middleware around one engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from inarch_server.http.body import MAX_BODY_BYTES
from inarch_server.http.cors import ORIGINS, allow_origin, parse_origins
from inarch_server.http.middleware import MIDDLEWARES, show_id
from inarch_server.http.turnstile import TURNSTILE, Turnstile
from inarch_server.native.sessions import SESSIONS, Sessions
from inarch_server.openai.responses.store import RESPONSES, ResponseStore
from inarch_server.openapi import document
from inarch_server.routes import ROUTES
from inarch_server.service import SERVICE, Service
from inarch_server.watching.health import Health
from inarch_server.watching.live import ERRORS, RecentErrors
from inarch_server.watching.metrics import Metrics
from inarch_server.watching.observers import asked_for
from inarch_server.watching.tally import METRICS_DIR

if TYPE_CHECKING:
    from inarch.config import EngineConfig
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.watching.account import Observer


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
    app[ORIGINS] = parse_origins(config.cors_origins)
    app.on_response_prepare.extend((show_id, allow_origin))
    for route in ROUTES:
        for method, path in route.ways:
            app.router.add_route(method, path, route.handler)
    app.router.add_get("/openapi.json", document.document)
    return app
