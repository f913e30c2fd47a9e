"""What a state has said so far: plain text, or messages of which the last may be open.

A transcript is a value that only grows. Whoever turns it into tokens keeps them beside it, so that
what has been tokenized, or generated, is never tokenized again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from inarch.errors import InvalidRequestError
from inarch.lang.expressions import Role
from inarch.lang.tools import CallMade


@dataclass(frozen=True)
class Message:
    """more: "tool_calls" of an assistant's message, "tool_call_id" and "name" of a tool's."""

    role: Role | Literal["tool"]
    content: str
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"role": self.role, "content": self.content, **self.more}


@dataclass(frozen=True)
class Encoded:
    """Tokens of the beginning of a transcript. computed: of how many an engine has the KV already."""

    text: str = ""
    ids: tuple[int, ...] = ()
    computed: int = 0


@dataclass
class Transcript:
    """messages: those that are over. role: of the one that is open; None: none is, or plain text."""

    messages: list[Message] = field(default_factory=list)
    role: Role | None = None
    content: str = ""  # of the open message, or all of a plain text
    encoded: Encoded = field(default_factory=Encoded)

    def copy(self) -> Transcript:
        return replace(self, messages=list(self.messages))

    @property
    def chat(self) -> bool:
        return self.role is not None or bool(self.messages)

    def add(self, text: str) -> None:
        if self.messages and self.role is None and text:
            raise InvalidRequestError(
                "text behind messages must be in a message too: put it in user(...) or assistant(...)"
            )
        self.content += text

    def begin(self, role: Role) -> None:
        if self.role is not None:
            raise InvalidRequestError(f"a {role} message begins inside of a {self.role} message")
        if self.content:
            raise InvalidRequestError(
                f"a {role} message begins behind plain text: put that text in a message too"
            )
        self.role = role

    def end(self, role: Role) -> None:
        if self.role != role:
            raise InvalidRequestError(f"a {role} message ends, but the open one is {self.role}")
        self.messages.append(Message(role, self.content))
        self.role, self.content = None, ""

    def call(self, calls: Sequence[CallMade], results: Sequence[str]) -> None:
        """End the open message with these calls, and begin the next one behind their results."""
        listed = [call.as_dict() for call in calls]
        self.messages.append(Message("assistant", self.content, {"tool_calls": listed}))
        for call, result in zip(calls, results, strict=True):
            self.messages.append(
                Message("tool", result, {"tool_call_id": call.id, "name": call.name})
            )
        self.content = ""

    def as_messages(self) -> list[Mapping[str, Any]]:
        """With the open one, as far as it has come."""
        open_one = [Message(self.role, self.content)] if self.role is not None else []
        return [message.as_dict() for message in (*self.messages, *open_one)]
