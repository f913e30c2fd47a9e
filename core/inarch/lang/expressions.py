"""What a program adds to its state: texts, roles, generated and chosen parts, and sums of these.

Expressions are plain data; nothing runs until one is added to a state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from inarch.errors import InvalidRequestError
from inarch.lang.words import MAX_TOKENS
from inarch.sampling import SamplingParams

if TYPE_CHECKING:
    from inarch.lang.choices import ChoicesMethod
    from inarch.lang.tools import Tool

Role = Literal["system", "user", "assistant"]
MODELS_OWN = "the model's own"  # format of reasoning


class Expression:
    """Anything that can be added to a state, or to another expression or text."""

    def __add__(self, other: Expression | str) -> Sequence:
        return Sequence((*parts_of(self), *parts_of(other)))

    def __radd__(self, other: Expression | str) -> Sequence:
        return Sequence((*parts_of(other), *parts_of(self)))


@dataclass(frozen=True)
class Text(Expression):
    text: str


@dataclass(frozen=True)
class Sequence(Expression):
    """Parts that are added one after the other."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class RoleBegin(Expression):
    """What follows is a message of this role, up to its end."""

    role: Role


@dataclass(frozen=True)
class RoleEnd(Expression):
    role: Role


@dataclass(frozen=True)
class ScopeBegin(Expression):
    """The text up to the scope's end becomes the variable `name`."""

    name: str


@dataclass(frozen=True)
class ScopeEnd(Expression):
    name: str


@dataclass(frozen=True)
class Image(Expression):
    """A picture in a message. source: as `read_picture` takes it."""

    source: Any


@dataclass(frozen=True)
class Gen(Expression):
    """A part that the model writes; its text becomes the variable `name`, if it has one.

    sampling: fields of SamplingParams that the expression sets; what it leaves out comes from `run`,
    then from the model. model: the pydantic class that the text is read into, if one was given.
    reasoning: the format of the reasoning that is kept apart, MODELS_OWN for the model's; None: none.
    lora: the adapter that it is written with.
    """

    name: str | None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    model: type[Any] | None = None
    reasoning: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "required"] = "auto"
    lora: str | None = None

    def params(self, defaults: Mapping[str, Any]) -> SamplingParams:
        return SamplingParams(**{"max_tokens": MAX_TOKENS, **defaults, **self.sampling})

    @property
    def reasoning_name(self) -> str:
        return f"{self.name}_reasoning_content"


@dataclass(frozen=True)
class Select(Expression):
    """A part that is one of the choices: the one that `method` finds the model to prefer."""

    name: str | None
    choices: tuple[str, ...]
    method: ChoicesMethod

    def __post_init__(self) -> None:
        if not self.choices or not all(isinstance(c, str) and c for c in self.choices):
            raise InvalidRequestError(
                "select needs one choice or more, all of them text, and none may be empty",
                param="choices",
            )


def parts_of(value: Expression | str) -> Iterator[Expression]:
    """The single parts of what was added. Raises InvalidRequestError for what cannot be."""
    if isinstance(value, Sequence):
        yield from value.parts
    elif isinstance(value, Expression):
        yield value
    elif isinstance(value, str):
        yield Text(value)
    else:
        raise InvalidRequestError(
            f"a state takes text and expressions such as gen(), not {type(value).__name__}:"
            " write str(...) around it"
        )
