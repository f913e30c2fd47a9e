"""`inarch batch`: the shape of the command."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inarch.cli.options import GroupedCommand, engine_options

if TYPE_CHECKING:
    from inarch.config import EngineConfig


@click.command("batch", cls=GroupedCommand)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where answers go; FILE.answers.jsonl by default.",
)
@engine_options()
def batch(config: EngineConfig, file: Path, output: Path | None) -> None:
    """Answer the requests in FILE, which is in the format of OpenAI's batch API.

    Each line of FILE is {"custom_id", "method", "url", "body"}, each line of the output the answer
    to one. Answers that the output has already are not asked for again: after an interruption, run
    the same command.

    \b
    inarch batch questions.jsonl MODEL
    """
    import asyncio

    from inarch_server.batch.files import Answers, read_requests
    from inarch_server.batch.run import run_batch

    path = output or file.with_name(f"{file.stem}.answers.jsonl")
    total = sum(1 for _ in read_requests(file))  # a line that is wrong is told before a model loads
    answers = Answers(path)
    try:
        before = len(answers.done)
        done = frozenset(answers.done)
        left = (request for request in read_requests(file) if request.custom_id not in done)
        with _bar(total, before) as advance:
            refusals = 0
            if before < total:
                refusals = asyncio.run(run_batch(config, left, answers, advance))
    except KeyboardInterrupt:
        there = f"{len(answers.done)} of {total} answers are in {path}"
        click.echo(f"{there}; the same command goes on from there", err=True)
        raise
    finally:
        answers.close()
    told = f", {refusals} of them refusals" if refusals else ""
    click.echo(f"{len(answers.done) - before} answers{told} in {path}", err=True)


@contextlib.contextmanager
def _bar(total: int, done: int) -> Iterator[Callable[[], object]]:
    """On a terminal; what it gives is called for each answer."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Answers", total=total, completed=done)
        yield lambda: bar.advance(task)
