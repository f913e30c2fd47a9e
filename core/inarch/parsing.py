"""From the text of an answer to what it means: content, reasoning, calls of tools.

Every model family writes calls and reasoning its own way. A plugin describes such a format (hooks
`inarch_tool_formats`, `inarch_reasoning_formats`): how to recognise a model that uses it, how to
read it as it streams, and how to hold an answer to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from inarch.grammar import Grammar


@dataclass(frozen=True, slots=True)
class Content:
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call begins. Its arguments follow; `index` counts the calls of one answer from 0."""

    index: int
    name: str
    id: str | None = None  # as the model wrote it, where the format has ids


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the arguments of call `index`: the concatenation is one JSON object."""

    index: int
    text: str


Delta = Content | Reasoning | Call | Arguments


class Parser(Protocol):
    """Reads one answer. Whatever way the text is split, the concatenated deltas are the same."""

    def feed(self, text: str) -> list[Delta]:
        """What is certain by now. Text that may yet turn out to be part of a marker is held back."""

    def end(self) -> list[Delta]:
        """The rest, when no more text comes: what was held back is never lost."""


@dataclass(frozen=True)
class Tool:
    """A function that the model may call. parameters: JSON schema of its arguments, an object."""

    name: str
    parameters: Mapping[str, Any]
    description: str = ""


@dataclass(frozen=True)
class Choice:
    """How the caller lets the model choose: freely, surely one of the tools, or surely this one."""

    kind: Literal["auto", "required", "named"] = "auto"
    name: str | None = None  # of the tool, if "named"
    parallel: bool = True  # several calls in one answer


@dataclass(frozen=True)
class Template:
    """What is known of a model before it says anything: enough to recognise its formats."""

    model_type: str  # of config.json
    chat_template: str  # Jinja source; "" if it has none
    special_tokens: Sequence[str] = ()


@runtime_checkable
class ToolFormat(Protocol):
    """One way to write calls, e.g. "hermes"."""

    @property
    def name(self) -> str: ...

    @property
    def special(self) -> bool:
        """Whether its markers are special tokens, for some models at least: the text keeps them."""

    @property
    def reasons(self) -> bool:
        """Whether its parser tells reasoning apart itself: no ReasoningFormat goes before it."""

    def used_by(self, template: Template) -> bool:
        """Whether a model of this template writes calls so. Names win over this: --tool-call-parser."""

    def parser(self, tools: Sequence[Tool]) -> Parser:
        """A parser for one answer; names that are not of `tools` are content, not calls."""

    def grammar(self, tools: Sequence[Tool], choice: Choice) -> Grammar:
        """Holds the arguments of every call to its tool's schema, and for "required" and "named"
        the answer to calls; for "auto" the text outside of calls is free."""


@runtime_checkable
class ReasoningFormat(Protocol):
    """One way to set reasoning apart from the answer, e.g. "qwen3"."""

    @property
    def name(self) -> str: ...

    @property
    def special(self) -> bool: ...

    @property
    def begin(self) -> str:
        """The text that begins reasoning, e.g. "<think>"; "" if every answer passes `end`."""

    @property
    def end(self) -> str:
        """The text that ends reasoning, e.g. "</think>"."""

    def used_by(self, template: Template) -> bool: ...

    def parser(self, prompt_end: str) -> Parser:
        """A parser for one answer, giving Reasoning and Content. `prompt_end`: the last characters
        of the rendered prompt, since a template may begin the reasoning itself, or end it."""
