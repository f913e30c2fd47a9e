"""From the text that a model writes to what it says: text, reasoning, calls of tools."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace

from inarch.formats import Formats, choose_formats
from inarch.lang.executors.executor import Piece, Wanted
from inarch.lang.expressions import MODELS_OWN
from inarch.lang.tools import CallMade
from inarch.parsing import Arguments, Call, Content, Delta, Reasoning, Template
from inarch.plugins import load_plugins

PROMPT_END = 256  # characters of a prompt by which a format tells whether reasoning has begun


def formats_for(wanted: Wanted, own: Formats) -> Formats:
    """What to look for in the answer. Raises ConfigError for a format that nobody knows."""
    match wanted.reasoning:
        case None:
            reasoning = None
        case str(name) if name != MODELS_OWN:
            nothing = Template("", "")
            reasoning = choose_formats(load_plugins(), nothing, reasoning_parser=name).reasoning
        case _:
            reasoning = own.reasoning
    return Formats(own.tools if wanted.tools else None, reasoning)


class Reader:
    """Reads one answer."""

    def __init__(self, formats: Formats, wanted: Wanted, prompt: str) -> None:
        described = [tool.described for tool in wanted.tools]
        self._parser = formats.open_parser(described, prompt[-PROMPT_END:])
        self._names: dict[int, tuple[str, str]] = {}
        self._arguments: dict[int, str] = {}

    def read(self, piece: Piece) -> Piece:
        """The same piece, its text read; calls come with the last one."""
        over = piece.meta is not None
        deltas = self._parser.feed(piece.text) + (self._parser.end() if over else [])
        text, reasoning = self._sort(deltas)
        calls = [CallMade(*self._names[i], self._arguments[i]) for i in sorted(self._names)]
        return replace(piece, text=text, reasoning=reasoning, calls=tuple(calls) if over else ())

    def _sort(self, deltas: Iterable[Delta]) -> tuple[str, str]:
        text = reasoning = ""
        for delta in deltas:
            match delta:
                case Content(more):
                    text += more
                case Reasoning(more):
                    reasoning += more
                case Call(index, name, given):
                    self._names[index] = (given or f"call_{uuid.uuid4().hex[:24]}", name)
                    self._arguments[index] = ""
                case Arguments(index, more):
                    self._arguments[index] += more
        return text, reasoning
