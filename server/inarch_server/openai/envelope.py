"""What OpenAI's two endpoints share: the envelope around choices, and usage in a stream."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

from inarch.version import __version__
from inarch_server.answering import sse
from inarch_server.answering.answers import Answers, Piece
from inarch_server.http.encoding import encode
from inarch_server.openai.protocol import StreamOptions


@dataclass(frozen=True)
class Envelope:
    """The fields that every object of one answer repeats."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"inarch-{__version__}",
        }

    def wrap(self, kind: str, choices: list[dict[str, Any]], **further: Any) -> dict[str, Any]:
        return {**self.head(kind), "choices": choices, **further}


class OpenAIEvents(sse.DataEvents):
    """Events of a stream of choices; `kind` and `choice` are the endpoint's.

    There is one for nearly every token, and all of them but the choice is the same: encoded once.
    """

    kind: ClassVar[str]

    def __init__(self, envelope: Envelope, answers: Answers, options: StreamOptions | None) -> None:
        self._envelope, self._answers = envelope, answers
        self._usage_at_end = bool(options and options.include_usage)
        self._usage_always = bool(options and options.continuous_usage_stats)
        self._before = b"data: " + encode(envelope.head(self.kind))[:-1] + b',"choices":['
        self._after = (b'],"usage":null}' if self._usage_at_end else b"]}") + b"\n\n"

    def choice(self, piece: Piece) -> dict[str, Any]:
        raise NotImplementedError

    def usage(self) -> dict[str, Any]:
        return self._answers.usage()

    def of(self, piece: Piece) -> bytes:
        choice = self.choice(piece)
        if self._usage_always:
            whole = self._envelope.wrap(self.kind, [choice], usage=self.usage())
            return sse.event(encode(whole))
        return b"%b%b%b" % (self._before, encode(choice), self._after)

    def end(self) -> bytes:
        if not self._usage_at_end:
            return sse.DONE
        last = self._envelope.wrap(self.kind, [], usage=self.usage())
        return sse.event(encode(last)) + sse.DONE
