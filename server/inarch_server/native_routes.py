"""Where SGLang's clients expect its native API to be."""

from __future__ import annotations

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch_server import admin, native_info, native_parsing
from inarch_server.body import read_body
from inarch_server.native import generate
from inarch_server.native_protocol import CloseSession, OpenSession
from inarch_server.openai_common import json_response
from inarch_server.service import SERVICE
from inarch_server.sessions import SESSIONS


def native_routes() -> list[web.RouteDef]:
    return [
        web.post("/generate", generate),
        web.put("/generate", generate),
        web.get("/model_info", native_info.model_info),
        web.get("/get_model_info", native_info.model_info),
        web.get("/server_info", native_info.server_info),
        web.get("/get_server_info", native_info.server_info),
        web.get("/v1/loads", native_info.loads),
        web.get("/flush_cache", admin.flush_cache),
        web.post("/flush_cache", admin.flush_cache),
        web.post("/abort_request", admin.abort_request),
        web.post("/pause_generation", admin.pause_generation),
        web.post("/continue_generation", admin.continue_generation),
        web.get("/start_profile", admin.start_profile),
        web.post("/start_profile", admin.start_profile),
        web.get("/stop_profile", admin.stop_profile),
        web.post("/stop_profile", admin.stop_profile),
        web.post("/parse_function_call", native_parsing.parse_function_call),
        web.post("/separate_reasoning", native_parsing.separate_reasoning),
        web.post("/open_session", open_session),
        web.post("/close_session", close_session),
    ]


async def open_session(request: web.Request) -> web.Response:
    """Answers with the session's id, as JSON text."""
    body = await read_body(request, OpenSession)
    workers = request.app[SERVICE].config.api_workers
    if workers > 1:
        raise InvalidRequestError(
            f"sessions live in one front-end process, and this server has {workers}: a request would"
            " reach another one. Start it with --api-workers 1, or send whole prompts: the prefix"
            " cache makes them as quick"
        )
    return json_response(request.app[SESSIONS].open(body))


async def close_session(request: web.Request) -> web.Response:
    body = await read_body(request, CloseSession)
    request.app[SESSIONS].close(body.session_id)
    return json_response({"success": True})
