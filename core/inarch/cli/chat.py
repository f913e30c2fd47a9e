"""`inarch chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import click

from inarch.cli.options import GroupedCommand, engine_options
from inarch.cli.sampling import sampling_options
from inarch.errors import InvalidRequestError

if TYPE_CHECKING:
    from inarch.config import EngineConfig

HELP = "/reset forgets what was said, /exit or Ctrl-D leaves, Ctrl-C stops an answer."
# Shown as pictures: a model may write what would clear the screen.
CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}


class Replies(Protocol):
    """Who answers: an engine in this process or a server."""

    name: str

    def reply(self, messages: Sequence[Mapping[str, str]]) -> Generator[str, None, None]: ...


@click.command("chat", cls=GroupedCommand)
@click.option("--url", help="Talk to the server at this address instead of loading a model.")
@click.option("--api-key", envvar="INARCH_API_KEY", help="Key to send to the server.")
@click.option("--system", metavar="TEXT", help="System prompt: what the model should know or be.")
@sampling_options
@engine_options("Model", "Hardware", "Memory and scheduling")
def chat(
    config: EngineConfig,
    url: str | None,
    api_key: str | None,
    system: str | None,
    sampling: dict[str, Any],
) -> None:
    """Talk to MODEL in the terminal, or with --url to any server with OpenAI's API.

    Without MODEL it is the bundled one, or the first that the server lists.
    """
    with _replies(config, url, api_key, sampling) as replies:
        Conversation(replies, system).run()


@contextmanager
def _replies(
    config: EngineConfig, url: str | None, api_key: str | None, sampling: dict[str, Any]
) -> Iterator[Replies]:
    if url is not None:
        from inarch.cli.remote import ServerReplies

        yield ServerReplies(url, config.model, api_key, sampling)
        return
    from rich.console import Console

    from inarch.cli.local import EngineReplies
    from inarch.engine.engine import Engine

    with Console(stderr=True).status("Loading ..."):
        engine = Engine(config)
    with engine:
        yield EngineReplies(engine, sampling)


class Conversation:
    """What was said so far, and the loop that goes on with it."""

    def __init__(self, replies: Replies, system: str | None) -> None:
        self._replies = replies
        self._opening = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._opening)

    def run(self) -> None:
        """Until /exit, or the end of the input (Ctrl-D)."""
        with suppress(ImportError):  # not on every system; lets input() edit and recall lines
            import readline  # noqa: F401
        click.secho(f"Talking to {self._replies.name}. {HELP}", dim=True)
        while (said := self._ask()) is not None:
            match said.strip():
                case "":
                    pass
                case "/exit":
                    return
                case "/reset":
                    self._messages = list(self._opening)
                    click.secho("Forgotten.", dim=True)
                case command if command.startswith("/") and " " not in command:
                    click.secho(f"No such command. {HELP}", fg="yellow")
                case text:
                    self._turn(text)

    def _ask(self) -> str | None:
        """A line of the user's, None at the end of the input."""
        prompt = "\n> " if sys.stdin.isatty() else ""
        while True:
            try:
                return input(prompt)
            except EOFError:
                click.echo("\n" if prompt else "", nl=False)
                return None
            except KeyboardInterrupt:  # nothing to stop: as shells do, start a new line
                click.secho(f"\n{HELP}", dim=True)

    def _turn(self, text: str) -> None:
        """Answer one message; it is taken back if there is no answer."""
        self._messages.append({"role": "user", "content": text})
        answer = ""
        try:
            answer = self._show_answer()
        except InvalidRequestError as error:
            click.secho(f"{error}\n(/reset starts anew.)", fg="red")
        if answer:
            self._messages.append({"role": "assistant", "content": answer})
        else:
            self._messages.pop()

    def _show_answer(self) -> str:
        pieces: list[str] = []
        reply = self._replies.reply(self._messages)
        try:
            with closing(reply):
                for piece in reply:
                    pieces.append(piece)
                    click.secho(piece.translate(CONTROL_PICTURES), fg="cyan", nl=False)
        except KeyboardInterrupt:
            click.secho(" (stopped)", dim=True, nl=False)
        click.echo()
        return "".join(pieces)
