"""The engine's options on the command line, generated from inarch.config."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from inarch.config import EngineConfig, OptionField, fields, from_mapping
from inarch.errors import ConfigError


class GroupedCommand(click.Command):
    """Prints options under the headings of their groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = getattr(parameter, "group", "General")
                groups.setdefault(heading, []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class GroupedOption(click.Option):
    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


def engine_options(*groups: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add MODEL, --config and the options of `groups` (all by default).

    The function gets them as one argument, `config: EngineConfig`. Later wins: configuration file,
    then environment (INARCH_PORT=...), then command line.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        shown = [field for field in fields() if not groups or field.group in groups]

        @functools.wraps(function)
        def command(config_file: Path | None, **arguments: Any) -> Any:
            given = {f.name: arguments.pop(f.name) for f in shown}
            values = _checked(config_file) | {k: v for k, v in given.items() if v not in (None, ())}
            if isinstance(values.get("kernels"), tuple):
                values["kernels"] = dict(_pair(item) for item in values["kernels"])
            return function(config=from_mapping(values), **arguments)

        for field in reversed(shown):
            command = _parameter(field)(command)
        return click.option(
            "--config",
            "config_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="YAML file of options; environment (INARCH_PORT=...) and command line override it.",
        )(command)

    return decorate


def _parameter(field: OptionField) -> Callable[[Any], Any]:
    """A click parameter that is None unless it was given, so that a file may say otherwise."""
    if field.name == "model":
        return click.argument("model", required=False, envvar="INARCH_MODEL")
    help = (
        field.help
        if field.default in (None, {}, False)
        else f"{field.help} [default: {field.default}]"
    )
    extra: dict[str, Any] = {"help": help, "envvar": "INARCH_" + field.name.upper()}
    flag = field.flag
    if field.kind is bool:
        flag = f"{flag}/--no-{field.flag[2:]}"
        extra["default"] = None
    elif field.kind is dict:
        extra |= {"multiple": True, "metavar": field.metavar}
    elif field.choices:
        extra["type"] = click.Choice(field.choices)
    else:
        extra |= {"type": field.kind, "metavar": field.metavar}
    return click.option(flag, field.name, cls=GroupedOption, group=field.group, **extra)


def _checked(path: Path | None) -> dict[str, Any]:
    """The options of a configuration file; ConfigError names the file."""
    values = _read(path)
    try:
        from_mapping(values)
    except ConfigError as error:
        raise ConfigError(f"--config {path}: {error}") from error
    return values


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path}: {error}") from error
    if not isinstance(loaded or {}, dict):
        raise ConfigError(f"--config {path}: expected a mapping of options to values")
    return {str(key).replace("-", "_"): value for key, value in (loaded or {}).items()}


def _pair(item: str) -> tuple[str, str]:
    op, _, kernel = item.partition("=")
    if not op or not kernel:
        raise ConfigError(f"--kernels {item!r}: expected OP=NAME")
    return op, kernel


__all__ = ["EngineConfig", "GroupedCommand", "engine_options"]
