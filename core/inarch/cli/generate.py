"""`inarch generate`: one prompt, one answer, on standard output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from inarch.cli.chat import CONTROL_PICTURES
from inarch.cli.options import GroupedCommand, engine_options
from inarch.cli.sampling import sampling_options

if TYPE_CHECKING:
    from inarch.config import EngineConfig


@click.command("generate", cls=GroupedCommand)
@click.option("--prompt", required=True, metavar="TEXT", help="What to continue; - reads stdin.")
@click.option(
    "--raw", is_flag=True, help="Continue the text as it is, without the model's chat template."
)
@click.option("--stop", multiple=True, metavar="TEXT", help="Text to end before; may be repeated.")
@sampling_options
@engine_options("Model", "Hardware", "Memory and scheduling")
def generate(
    config: EngineConfig, prompt: str, raw: bool, stop: tuple[str, ...], sampling: dict[str, Any]
) -> None:
    """Let MODEL, or the bundled model, answer a message or continue a text.

    Only the answer goes to standard output, as it is made.

    \b
    inarch generate --prompt "What is the capital of France?"
    echo "The capital of France is" | inarch generate --raw --prompt - --max-tokens 8
    """
    from inarch.cli.local import chat_prompt, sampling_params, stream_text
    from inarch.engine.engine import Engine

    text = sys.stdin.read() if prompt == "-" else prompt
    with Engine(config) as engine:
        params = sampling_params(engine, sampling | {"stop": stop})
        messages = [{"role": "user", "content": text}]
        chat = engine.tokenizer.has_chat_template and not raw
        wanted = chat_prompt(engine, messages) if chat else text
        watched = sys.stdout.isatty()
        for piece in stream_text(engine, wanted, params):
            click.echo(piece.translate(CONTROL_PICTURES) if watched else piece, nl=False)
        click.echo()
