"""Where SGLang's clients expect its native API to be."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch_server import admin, native_info, native_parsing
from inarch_server.body import read_body
from inarch_server.native import generate
from inarch_server.native_protocol import CloseSession, GenerateRequest, OpenSession
from inarch_server.openai_common import json_response
from inarch_server.route import Route
from inarch_server.service import SERVICE
from inarch_server.sessions import SESSIONS


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


NATIVE_ROUTES: Sequence[Route] = (
    Route(
        "POST",
        "/generate",
        generate,
        "SGLang's native request",
        "Generated",
        GenerateRequest,
        streams=True,
        also=(("PUT", "/generate"),),
    ),
    Route(
        "GET",
        "/model_info",
        native_info.model_info,
        "What is served",
        "Object",
        also=(("GET", "/get_model_info"),),
    ),
    Route(
        "GET",
        "/server_info",
        native_info.server_info,
        "How it is served",
        "Object",
        also=(("GET", "/get_server_info"),),
    ),
    Route("GET", "/v1/loads", native_info.loads, "How much there is to do", "Object"),
    Route(
        "POST",
        "/flush_cache",
        admin.flush_cache,
        "Forget cached prefixes",
        "Object",
        also=(("GET", "/flush_cache"),),
    ),
    Route(
        "POST",
        "/abort_request",
        admin.abort_request,
        "End requests by name, or all",
        "Object",
        admin.AbortRequest,
    ),
    Route(
        "POST",
        "/pause_generation",
        admin.pause_generation,
        "Let all requests stand still",
        "Object",
        admin.PauseRequest,
        body_needed=False,
    ),
    Route("POST", "/continue_generation", admin.continue_generation, "Let them go on", "Object"),
    Route(
        "POST",
        "/start_profile",
        admin.start_profile,
        "Begin to record what the engine does",
        "Object",
        admin.ProfileRequest,
        body_needed=False,
        also=(("GET", "/start_profile"),),
    ),
    Route(
        "POST",
        "/stop_profile",
        admin.stop_profile,
        "Write down what was recorded",
        "Object",
        also=(("GET", "/stop_profile"),),
    ),
    Route(
        "POST",
        "/parse_function_call",
        native_parsing.parse_function_call,
        "Read the calls in a text",
        "Object",
        native_parsing.ParseRequest,
    ),
    Route(
        "POST",
        "/separate_reasoning",
        native_parsing.separate_reasoning,
        "Set reasoning apart in a text",
        "Object",
        native_parsing.SeparateRequest,
    ),
    Route("POST", "/open_session", open_session, "Begin a session", "Name", OpenSession),
    Route("POST", "/close_session", close_session, "End a session", "Object", CloseSession),
)
