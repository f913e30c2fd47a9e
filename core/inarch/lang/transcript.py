"""What a state has said so far: plain text, or messages of which the last may be open.

A transcript is a value that only grows. Whoever turns it into tokens keeps them beside it, so that
what has been tokenized, or generated, is never tokenized again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from inarch.errors import InvalidRequestError
from inarch.lang.expressions import Role
from inarch.lang.pictures import Picture
from inarch.lang.tools import CallMade
from inarch.sampling import SamplingParams

Placed = tuple[int, Picture]  # how many characters of a message's text come before a picture


@dataclass(frozen=True)
class Message:
    """more: "tool_calls" of an assistant's message, "tool_call_id" and "name" of a tool's."""

    role: Role | Literal["tool"]
    content: str
    more: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[Placed, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As OpenAI's API has it."""
        return {"role": self.role, "content": self._content(), **self.more}

    def _content(self) -> str | list[dict[str, Any]]:
        if not self.pictures:
            return self.content
        return [
            {"type": "text", "text": part} if isinstance(part, str) else part.for_openai()
            for part in self.parts()
        ]

    def parts(self) -> Iterator[str | Picture]:
        """Texts and pictures in their order."""
        begun = 0
        for at, picture in self.pictures:
            if at > begun:
                yield self.content[begun:at]
            yield picture
            begun = at
        if begun < len(self.content):
            yield self.content[begun:]


@dataclass(frozen=True)
class Encoded:
    """Tokens of the beginning of a transcript. computed: of how many an engine has the KV already."""

    text: str = ""
    ids: tuple[int, ...] = ()
    computed: int = 0


@dataclass(frozen=True)
class Ahead:
    """What an API wrote of the message behind so many others, further than it was asked for.

    over: nothing follows. params: with which it was asked.
    """

    messages: int
    content: str
    over: bool
    params: SamplingParams


@dataclass
class Transcript:
    """messages: those that are over. role: of the one that is open; None: none is, or plain text."""

    messages: list[Message] = field(default_factory=list)
    role: Role | None = None
    content: str = ""  # of the open message, or all of a plain text
    pictures: tuple[Placed, ...] = ()  # of the open message
    encoded: Encoded = field(default_factory=Encoded)
    ahead: Ahead | None = None

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

    def show(self, picture: Picture) -> None:
        if self.role is None:
            raise InvalidRequestError("a picture belongs in a message: user(image(...) + text)")
        self.pictures += ((len(self.content), picture),)

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
        self.messages.append(Message(role, self.content, pictures=self.pictures))
        self.role, self.content, self.pictures = None, "", ()

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
        return [message.as_dict() for message in self.with_open()]

    def with_open(self) -> list[Message]:
        if self.role is None:
            return self.messages
        return [*self.messages, Message(self.role, self.content, pictures=self.pictures)]
