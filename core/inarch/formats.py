"""The formats in which the served model writes calls and reasoning, and one parser for both.

Which formats there are, plugins say. Which of them a model uses is told by its chat template, or by
the user: --tool-call-parser and --reasoning-parser.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from inarch.discovery import PluginRecord
from inarch.errors import ConfigError
from inarch.parsing import (
    Content,
    Delta,
    Parser,
    Reasoning,
    ReasoningFormat,
    Template,
    Tool,
    ToolFormat,
)
from inarch.plugins import Fault, Plugins, guarded

OFF = "none"  # as the name of a format: look for none in what the model writes
DEFAULT_TOOLS = "json"  # for models that were not taught a format of their own

F = TypeVar("F", ToolFormat, ReasoningFormat)


@dataclass(frozen=True)
class Formats:
    """What is looked for in the answers of a model; None: nothing of that kind."""

    tools: ToolFormat | None = None
    reasoning: ReasoningFormat | None = None

    def special(self, tools: Sequence[Tool] = ()) -> bool:
        """Whether the text to parse must keep special tokens, since some are markers."""
        calls = self.tools is not None and bool(tools) and self.tools.special
        return calls or (self.reasoning is not None and self.reasoning.special)

    def open_parser(self, tools: Sequence[Tool] = (), prompt_end: str = "") -> Parser:
        """A parser for one answer, reasoning first: markers of calls within it are reasoning.

        tools: what may be called; without any, no calls are looked for.
        prompt_end: the last characters of the prompt, as rendered by the chat template.
        """
        calls = self.tools.parser(tools) if self.tools is not None and tools else None
        if self.tools is not None and self.tools.reasons and calls is not None:
            return calls if self.reasoning is not None else _Unreasoned(calls)
        reasoning = self.reasoning.parser(prompt_end) if self.reasoning is not None else None
        if reasoning is not None and calls is not None:
            return _Chained(reasoning, calls)
        return reasoning or calls or _Plain()


def parse(parser: Parser, text: str) -> list[Delta]:
    """A whole answer at once. Neighbouring deltas of one kind may still be apart."""
    return parser.feed(text) + parser.end()


def choose_formats(
    plugins: Plugins,
    template: Template,
    *,
    tool_call_parser: str | None = None,
    reasoning_parser: str | None = None,
) -> Formats:
    """Formats by name ("none" for none), or recognised from the model's template if None.

    Raises ConfigError, naming those there are, if there is no format of that name.
    """
    tools, reasonings = plugins.tool_formats(), plugins.reasoning_formats()
    return Formats(
        tools=_named(tools, tool_call_parser, "--tool-call-parser")
        if tool_call_parser is not None
        else _recognised(tools, template) or _default(tools),
        reasoning=_named(reasonings, reasoning_parser, "--reasoning-parser")
        if reasoning_parser is not None
        else _recognised(reasonings, template),
    )


def _named(formats: Sequence[tuple[F, PluginRecord]], name: str, option: str) -> F | None:
    if name == OFF:
        return None
    found = [(format, plugin) for format, plugin in formats if format.name == name]
    if not found:
        names = ", ".join(sorted({format.name for format, _ in formats}))
        raise ConfigError(f"{option} {name}: there is no such format; there are: {names}, {OFF}")
    if len(found) > 1:
        keys = ", ".join(plugin.key for _, plugin in found)
        raise ConfigError(
            f"{option} {name}: several plugins give a format of that name ({keys}); disable all but"
            " one with INARCH_DISABLE_PLUGINS"
        )
    return found[0][0]


def _recognised(formats: Sequence[tuple[F, PluginRecord]], template: Template) -> F | None:
    """The first format that recognises the template; one that fails at it does not."""
    for format, _ in formats:
        answer = guarded(functools.partial(format.used_by, template))
        if not isinstance(answer, Fault) and answer:
            return format
    return None


def _default(formats: Sequence[tuple[ToolFormat, PluginRecord]]) -> ToolFormat | None:
    return next((format for format, _ in formats if format.name == DEFAULT_TOOLS), None)


class _Plain:
    """All of it is content."""

    def feed(self, text: str) -> list[Delta]:
        return [Content(text)] if text else []

    def end(self) -> list[Delta]:
        return []


class _Chained:
    """What the first parser takes for content goes through the second one."""

    def __init__(self, first: Parser, second: Parser) -> None:
        self._first, self._second = first, second

    def feed(self, text: str) -> list[Delta]:
        return self._through(self._first.feed(text))

    def end(self) -> list[Delta]:
        return self._through(self._first.end()) + self._second.end()

    def _through(self, deltas: list[Delta]) -> list[Delta]:
        out: list[Delta] = []
        for delta in deltas:
            out += self._second.feed(delta.text) if isinstance(delta, Content) else [delta]
        return out


class _Unreasoned:
    """For a format that always tells reasoning apart, where the user wants it in the content."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser

    def feed(self, text: str) -> list[Delta]:
        return [_as_content(delta) for delta in self._parser.feed(text)]

    def end(self) -> list[Delta]:
        return [_as_content(delta) for delta in self._parser.end()]


def _as_content(delta: Delta) -> Delta:
    return Content(delta.text) if isinstance(delta, Reasoning) else delta
