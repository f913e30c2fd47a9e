"""What a track tells of itself: values, pieces of text, calls that were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Variable:
    """A value and what is known of how it came about."""

    value: Any
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """New text. name: of the variable that it belongs to, if the model wrote it.

    aside: reasoning, which a variable has and the state's text has not.
    """

    text: str
    name: str | None = None
    meta: Mapping[str, Any] | None = None  # with the last text of a variable
    aside: bool = False


@dataclass(frozen=True)
class Call:
    """What one generation call took: times on the clock of time.monotonic, tokens."""

    name: str
    kind: Literal["gen", "select", "fork"]
    begun_s: float
    ended_s: float
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
