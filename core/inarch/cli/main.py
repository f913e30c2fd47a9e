"""The `inarch` command: finds the command asked for, imports that alone, and words its errors.

Help must answer at once, so a built-in command is a line of text here until it is run. Commands of
plugins (`serve` is one) come in by the hook `inarch_commands`.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from inarch.errors import InarchError
from inarch.version import __version__

if TYPE_CHECKING:
    from inarch.plugins import PluginRecord, Plugins

INTERRUPTED = 130  # 128 + SIGINT, as shells say it


class BuiltIn(NamedTuple):
    place: str  # "package.module:attribute"
    help: str


BUILT_IN = {
    "bench": BuiltIn("inarch.cli.bench:bench", "Measure a server, or the engine alone."),
    "chat": BuiltIn("inarch.cli.chat:chat", "Talk to a model in the terminal."),
    "conformance": BuiltIn(
        "inarch.cli.conformance:conformance", "Hold a backend to the hardware contract."
    ),
    "doctor": BuiltIn("inarch.cli.doctor:doctor", "Say what this machine can run, and why not."),
    "generate": BuiltIn("inarch.cli.generate:generate", "Answer prompts without a server."),
    "new-backend": BuiltIn(
        "inarch.cli.new_backend:new_backend", "Write a package for one more kind of hardware."
    ),
    "plugins": BuiltIn("inarch.cli.plugins:plugins", "List the plugins and how each one fares."),
}


class Commands(click.Group):
    """The built-in commands and those of plugins. A built-in name cannot be taken."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*BUILT_IN, *_given(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in BUILT_IN:
            module, _, attribute = BUILT_IN[cmd_name].place.partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        offers = _given(ctx).get(cmd_name, [])
        if len(offers) > 1:
            owners = " and ".join(record.key for _, record in offers)
            raise click.UsageError(
                f"command {cmd_name!r} is claimed by the plugins {owners}: "
                "disable one by INARCH_DISABLE_PLUGINS=DIST:NAME"
            )
        return offers[0][0] if offers else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, but without importing the built-in commands."""
        rows = {name: built_in.help for name, built_in in BUILT_IN.items()}
        for name, offers in _given(ctx).items():
            command = offers[0][0]
            if not command.hidden:
                rows.setdefault(name, command.get_short_help_str(limit=formatter.width - 16))
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """An unknown command may be that of a broken plugin: name those."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            broken = [f"{r.name} ({r.why})" for r in _plugins(ctx).records if r.broken]
            if not broken:
                raise
            hint = f"It may belong to a broken plugin: {'; '.join(broken)}."
            raise click.UsageError(f"{error.format_message()} {hint}", ctx) from error


@click.group(
    cls=Commands,
    context_settings={
        "auto_envvar_prefix": "INARCH",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="inarch")
def cli() -> None:
    """Serve large language models on any hardware."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script: runs one command and exits.

    0: done. 1: an error, on stderr. 2: wrong usage. 130: interrupted.
    """
    # An installed torch extension whose drivers are missing would break `import torch` itself; the
    # chosen backend imports its own.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result = cli.main(arguments, prog_name="inarch", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except InarchError as error:
        _say_error(str(error))
        return 1
    except Exception as error:
        traceback.print_exc()
        _say_error(f"{_whose_bug(error)}, please report it: {type(error).__name__}: {error}")
        return 1


def _whose_bug(error: Exception) -> str:
    from inarch.plugins import culprit, load_plugins

    plugin = culprit(error, load_plugins().records)
    if plugin is None:
        return "this is a bug in inarch"
    return f"this is a bug in {plugin.whole_name}, not in inarch"


def _say_error(message: str) -> None:
    click.secho(f"error: {message}", fg="red", err=True)


def _plugins(ctx: click.Context) -> Plugins:
    """The installed plugins, loaded once per run and only when a command needs them."""
    from inarch.plugins import load_plugins

    if "inarch.plugins" not in ctx.meta:
        ctx.meta["inarch.plugins"] = load_plugins()
    plugins: Plugins = ctx.meta["inarch.plugins"]
    return plugins


def _given(ctx: click.Context) -> dict[str, list[tuple[click.Command, PluginRecord]]]:
    """Commands of plugins by name; more than one owner is a clash."""
    given: dict[str, list[tuple[click.Command, PluginRecord]]] = {}
    for command, record in _plugins(ctx).commands():
        given.setdefault(command.name or "", []).append((command, record))
    return given
