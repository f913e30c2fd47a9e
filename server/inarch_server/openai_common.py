"""What OpenAI's two endpoints share: the envelope around choices, and usage in a stream."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
from aiohttp import web

from inarch.version import __version__
from inarch_server.answers import Answers, Piece
from inarch_server.protocol import StreamOptions


@dataclass(frozen=True)
class Envelope:
    """The fields that every object of one answer repeats."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    def wrap(self, kind: str, choices: list[dict[str, Any]], **further: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"inarch-{__version__}",
            "choices": choices,
            **further,
        }


class OpenAIEvents:
    """Events of a stream of choices; `kind` and `choices` are the endpoint's."""

    kind: ClassVar[str]

    def __init__(self, envelope: Envelope, answers: Answers, options: StreamOptions | None) -> None:
        self._envelope, self._answers = envelope, answers
        self._usage_at_end = bool(options and options.include_usage)
        self._usage_always = bool(options and options.continuous_usage_stats)

    def choices(self, piece: Piece) -> Iterable[dict[str, Any]]:
        raise NotImplementedError

    def of(self, piece: Piece) -> Iterable[dict[str, Any]]:
        for choice in self.choices(piece):
            yield self._envelope.wrap(self.kind, [choice], **self._usage())

    def end(self) -> Iterable[dict[str, Any]]:
        if self._usage_at_end:
            yield self._envelope.wrap(self.kind, [], usage=self._answers.usage())

    def _usage(self) -> dict[str, Any]:
        if self._usage_always:
            return {"usage": self._answers.usage()}
        return {"usage": None} if self._usage_at_end else {}


def json_response(value: Any, status: int = 200) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")
