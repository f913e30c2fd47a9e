"""Offers the formats of widespread model families to the server.

The first format that recognises a model's template is taken, so the more particular ones go first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inarch.hookspecs import hookimpl

if TYPE_CHECKING:
    from inarch.parsing import ReasoningFormat, ToolFormat

INARCH_API = (1, 0)


@hookimpl
def inarch_tool_formats() -> list[ToolFormat]:
    from inarch_formats.bare_json import BARE_JSON
    from inarch_formats.harmony import HarmonyTools
    from inarch_formats.hermes import Hermes
    from inarch_formats.markup import MARKUPS
    from inarch_formats.mistral import Mistral
    from inarch_formats.pythonic import Pythonic
    from inarch_formats.sections import SECTIONS

    return [HarmonyTools(), *SECTIONS, *MARKUPS, Mistral(), Hermes(), Pythonic(), *BARE_JSON]


@hookimpl
def inarch_reasoning_formats() -> list[ReasoningFormat]:
    from inarch_formats.harmony import HarmonyReasoning
    from inarch_formats.thinking import THINKING

    return [HarmonyReasoning(), *THINKING]
