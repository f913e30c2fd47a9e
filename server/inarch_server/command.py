"""`inarch serve`: the shape of the command. process/supervisor.py does it, imported when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inarch.cli.options import GroupedCommand, engine_options

if TYPE_CHECKING:
    from inarch.config import EngineConfig


@click.command("serve", cls=GroupedCommand)
@engine_options()
def serve(config: EngineConfig) -> None:
    """Serve MODEL over HTTP: APIs of OpenAI, Anthropic, Ollama and SGLang, a page to chat and watch.

    Without MODEL the bundled one is served.
    """
    from inarch_server.process.supervisor import run

    run(config)
