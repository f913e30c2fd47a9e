"""The door by which the server comes in: the same one that a third party's plugin uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inarch.hookspecs import hookimpl

if TYPE_CHECKING:
    import click

INARCH_API = (1, 0)


@hookimpl
def inarch_commands() -> Sequence[click.Command]:
    from inarch_server.batch.command import batch
    from inarch_server.command import serve

    return [serve, batch]
