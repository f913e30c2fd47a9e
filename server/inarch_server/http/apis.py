"""The APIs that share this server, told apart by path: each has its own words for a refusal.

An error is worded as OpenAI's first (refusals.py), and again here where a path belongs to another API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from inarch_server.http.refusals import Refusal

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
    504: "timeout_error",
    529: "overloaded_error",
}
OVERLOADED = "overloaded"  # the code of a request that finds the waiting line full
STATUSES = {OVERLOADED: 529, "timeout": 504}  # those that Anthropic's clients know, by code


def anthropic_error(error: Error, status: int | None = None) -> dict[str, Any]:
    """status: None within a stream, which has begun with another one."""
    kind = "api_error" if error["type"] == "server_error" else error["type"]
    status = STATUSES.get(error["code"], status)
    kind = ANTHROPIC_TYPES.get(status or 0, kind)
    return {"type": "error", "error": {"type": kind, "message": error["message"]}}


def ollama_error(error: Error, _: int | None = None) -> dict[str, Any]:
    return {"error": error["message"]}


OPENAI = Api()
ANTHROPIC = Api(
    errors="AnthropicError",
    id_headers=("X-Request-Id", "request-id"),
    statuses=STATUSES,
    word=anthropic_error,
)
OLLAMA = Api(errors="OllamaError", stream="application/x-ndjson", word=ollama_error)


def api_of(path: str) -> Api:
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return ANTHROPIC
    return OLLAMA if path.startswith("/api/") else OPENAI
