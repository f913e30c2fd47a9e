"""Offers the grammar engines, the preferred one first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inarch.hookspecs import hookimpl

if TYPE_CHECKING:
    from inarch.grammar import GrammarEngine

INARCH_API = (1, 0)


@hookimpl
def inarch_grammar_engines() -> list[GrammarEngine]:
    from inarch_grammars.with_llguidance import LlguidanceEngine
    from inarch_grammars.with_xgrammar import XgrammarEngine

    return [LlguidanceEngine(), XgrammarEngine()]
