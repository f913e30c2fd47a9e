"""Where SGLang's clients expect its native API to be."""

from __future__ import annotations

from collections.abc import Sequence

from inarch_server.http.route import Route
from inarch_server.native import admin, info, parsing, sessions, tokenizing
from inarch_server.native.generate import generate
from inarch_server.native.protocol import CloseSession, GenerateRequest, OpenSession
from inarch_server.native.tokenizing import DetokenizeRequest, TokenizeRequest

ROUTES: Sequence[Route] = (
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
        info.model_info,
        "What is served",
        "Object",
        also=(("GET", "/get_model_info"),),
    ),
    Route(
        "GET",
        "/server_info",
        info.server_info,
        "How it is served",
        "Object",
        also=(("GET", "/get_server_info"),),
    ),
    Route("GET", "/v1/loads", info.loads, "How much there is to do", "Object"),
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
        parsing.parse_function_call,
        "Read the calls in a text",
        "Object",
        parsing.ParseRequest,
    ),
    Route(
        "POST",
        "/separate_reasoning",
        parsing.separate_reasoning,
        "Set reasoning apart in a text",
        "Object",
        parsing.SeparateRequest,
    ),
    Route(
        "POST",
        "/v1/tokenize",
        tokenizing.tokenize,
        "Token ids of a text or a conversation",
        "Tokens",
        TokenizeRequest,
        also=(("POST", "/tokenize"),),
    ),
    Route(
        "POST",
        "/v1/detokenize",
        tokenizing.detokenize,
        "Text of token ids",
        "Text",
        DetokenizeRequest,
        also=(("POST", "/detokenize"),),
    ),
    Route("POST", "/open_session", sessions.open_session, "Begin a session", "Name", OpenSession),
    Route(
        "POST", "/close_session", sessions.close_session, "End a session", "Object", CloseSession
    ),
)
