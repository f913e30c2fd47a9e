"""The APIs that share this server, told apart by path: each has its own words for a refusal.

An error is worded as OpenAI's first (refusals.py), and again here where a path belongs to another API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from inarch_server.refusals import Refusal

Error = Mapping[str, Any]  # message, type, param and code, as OpenAI has them


@dataclass(frozen=True)
class Api:
    """errors: name of their schema in openapi_answers. stream: media type of streams. id_headers:
    where its clients look for the name of a request."""

    errors: str = "Error"
    stream: str = "text/event-stream"
    id_headers: tuple[str, ...] = ("X-Request-Id",)
    statuses: Mapping[str, int] | None = None  # by code, where they differ
    word: Callable[[Error, int], dict[str, Any]] = lambda error, _: {"error": error}

    def refuse(self, refusal: Refusal) -> Refusal:
        """The same refusal in the words of this API."""
        error = refusal.body["error"]
        status = (self.statuses or {}).get(error["code"] or "", refusal.status)
        return replace(refusal, status=status, body=self.word(error, status))


ANTHROPIC_TYPES = {
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    529: "overloaded_error",
}
OVERLOADED = "overloaded"  # the code of a request that finds the waiting line full


def anthropic_error(error: Error, status: int | None = None) -> dict[str, Any]:
    """status: None within a stream, which has begun with another one."""
    kind = error["type"]
    if error["code"] == OVERLOADED:
        kind = ANTHROPIC_TYPES[529]
    elif kind == "server_error":
        kind = "api_error"
    kind = ANTHROPIC_TYPES.get(status or 0, kind)
    return {"type": "error", "error": {"type": kind, "message": error["message"]}}


def ollama_error(error: Error, _: int | None = None) -> dict[str, Any]:
    return {"error": error["message"]}


OPENAI = Api()
ANTHROPIC = Api(
    errors="AnthropicError",
    id_headers=("X-Request-Id", "request-id"),
    statuses={OVERLOADED: 529},
    word=anthropic_error,
)
OLLAMA = Api(errors="OllamaError", stream="application/x-ndjson", word=ollama_error)


def api_of(path: str) -> Api:
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return ANTHROPIC
    return OLLAMA if path.startswith("/api/") else OPENAI
