"""Every error becomes one kind of answer: OpenAI's error body with the right status."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from inarch.errors import EngineDeadError, InarchError, InvalidRequestError
from inarch_server.http.body import MAX_BODY_BYTES

log = logging.getLogger("inarch.server")

RETRY_AFTER_S = "1"  # a queue moves quickly
TYPES = {401: "authentication_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class Refusal:
    status: int
    body: dict[str, Any]
    headers: dict[str, str]

    def response(self) -> web.Response:
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(self.body),
            content_type="application/json",
            headers=self.headers,
        )


def refusal(error: Exception, request_id: str) -> Refusal:
    """What to answer; an error that nobody foresaw is logged, and not shown to the client."""
    if isinstance(error, InvalidRequestError):
        wait = {"Retry-After": RETRY_AFTER_S} if error.status in (429, 503) else None
        return _refusal(error.status, str(error), param=error.param, code=error.code, headers=wait)
    if isinstance(error, EngineDeadError):
        return _refusal(503, str(error), code="engine_dead")
    if isinstance(error, InarchError):
        return _refusal(500, str(error), code="generation_failed")
    if isinstance(error, web.HTTPException):
        return _of_http(error)
    log.error("request %s failed", request_id, exc_info=error)
    return _refusal(500, f"internal error; the server's log has it under {request_id}")


def _of_http(error: web.HTTPException) -> Refusal:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        message = f"the body is larger than the limit of {MAX_BODY_BYTES >> 20} MiB"
        return _refusal(413, message, code="body_too_large")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{error.method} is not allowed here; allowed: {allowed}"
        return _refusal(405, message, headers={"Allow": allowed})
    if error.status == 404:
        return _refusal(
            404, "no such route; GET /openapi.json lists what there is", code="not_found"
        )
    return _refusal(error.status, error.text or error.reason)


def _refusal(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> Refusal:
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Refusal(status, body, headers or {})
