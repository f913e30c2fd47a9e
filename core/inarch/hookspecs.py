"""Every hook that a plugin may implement: the one page that a plugin author reads first.

A plugin is a module (or object) named by an entry point in the group "inarch". It states the plugin
API it was written for, and implements any of the hooks below:

    # pyproject.toml
    [project.entry-points.inarch]
    acme = "inarch_acme.plugin"

    # inarch_acme/plugin.py
    from inarch.hookspecs import hookimpl

    INARCH_API = (1, 0)

    @hookimpl
    def inarch_backends():
        from inarch_acme.backend import AcmeBackend
        return [AcmeBackend()]

Hooks are called at start-up, never inside a step. The module must import in milliseconds and load no
vendor library; `inarch plugins` shows how each plugin fared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from inarch.grammar import GrammarEngine
    from inarch.hal.backend import Backend
    from inarch.hal.op import Kernel
    from inarch.models.family import Family
    from inarch.parsing import ReasoningFormat, ToolFormat

# (major, minor). A plugin works if its major is equal and its minor is not newer.
API_VERSION = (1, 0)
ENTRY_POINT_GROUP = "inarch"

hookspec = pluggy.HookspecMarker("inarch")
hookimpl = pluggy.HookimplMarker("inarch")


@dataclass(frozen=True)
class BundledModel:
    """A model that comes as package data of a plugin: `inarch serve NAME` finds it."""

    name: str
    path: Path
    description: str


@hookspec
def inarch_backends() -> Sequence[Backend]:  # type: ignore[empty-body]
    """Kinds of hardware that this package makes usable. Called at start-up, before any device."""


@hookspec
def inarch_kernels(backend: str) -> Sequence[Kernel]:  # type: ignore[empty-body]
    """Further kernels for a backend that another package defines. Called once it is opened."""


@hookspec
def inarch_model_families() -> Sequence[Family]:  # type: ignore[empty-body]
    """Model families: what turns a Hugging Face config into a description the decoder runs."""


@hookspec
def inarch_bundled_models() -> Sequence[BundledModel]:  # type: ignore[empty-body]
    """Models that come with the package. The first one found is what `inarch serve` serves."""


@hookspec
def inarch_grammar_engines() -> Sequence[GrammarEngine]:  # type: ignore[empty-body]
    """Engines that hold answers to a grammar. Their libraries are imported when one is opened."""


@hookspec
def inarch_tool_formats() -> Sequence[ToolFormat]:  # type: ignore[empty-body]
    """Ways in which models write calls of tools."""


@hookspec
def inarch_reasoning_formats() -> Sequence[ReasoningFormat]:  # type: ignore[empty-body]
    """Ways in which models set their reasoning apart from the answer."""


@hookspec
def inarch_commands() -> Sequence[click.Command]:  # type: ignore[empty-body]
    """Further commands of the `inarch` command line. Their modules must import in milliseconds."""
