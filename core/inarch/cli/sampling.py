"""The options of `inarch chat` and `inarch generate` that say how to choose tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from inarch.cli.options import GroupedOption

OPTIONS = (
    ("max_tokens", click.IntRange(1), "N", "Most tokens of an answer; by default what fits."),
    ("temperature", click.FloatRange(0), "T", "0 always takes the likeliest token."),
    ("seed", int, "N", "Same seed, same answer."),
)


def sampling_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the function gets those that were given as `sampling: dict[str, Any]`."""

    @functools.wraps(function)
    def command(**arguments: Any) -> Any:
        values = {name: arguments.pop(name) for name, *_ in OPTIONS}
        given = {name: value for name, value in values.items() if value is not None}
        return function(sampling=given, **arguments)

    for name, kind, metavar, help in reversed(OPTIONS):
        flag = "--" + name.replace("_", "-")
        option = click.option(
            flag, cls=GroupedOption, group="Sampling", type=kind, metavar=metavar, help=help
        )
        command = option(command)
    return command
