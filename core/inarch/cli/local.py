"""Answers in the terminal from an engine in this process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from inarch.engine.vectors import check_generates
from inarch.errors import ModelError

if TYPE_CHECKING:
    from inarch.engine.answers import Prompt
    from inarch.engine.engine import Engine
    from inarch.sampling import SamplingParams


class EngineReplies:
    """Answers to a conversation. `given` are fields of SamplingParams."""

    def __init__(self, engine: Engine, given: Mapping[str, Any]) -> None:
        """Raises ModelError if the model has no chat template, InvalidRequestError if it generates
        no text or `given` is wrong."""
        check_generates(engine.info)
        self.name = engine.info.name
        if not engine.tokenizer.has_chat_template:
            raise ModelError(
                f"{self.name} has no chat template, so it cannot chat: give one with "
                "--chat-template FILE, or let it continue a text with `inarch generate`"
            )
        self._engine = engine
        self._params = sampling_params(engine, given)

    def reply(self, messages: Sequence[Mapping[str, str]]) -> Generator[str, None, None]:
        """The answer, piece by piece. Raises InvalidRequestError, and KeyboardInterrupt on Ctrl-C."""
        return stream_text(self._engine, chat_prompt(self._engine, messages), self._params)


def sampling_params(engine: Engine, given: Mapping[str, Any]) -> SamplingParams:
    """What the user gave, else what the model's makers recommend. Raises InvalidRequestError."""
    from inarch.sampling import SamplingParams

    params = SamplingParams(**(engine.info.default_sampling | dict(given)))
    params.check(engine.info.vocab_size)
    return params


def chat_prompt(engine: Engine, messages: Sequence[Mapping[str, str]]) -> list[int]:
    text = engine.tokenizer.apply_chat_template(messages)
    return engine.tokenizer.encode(text, add_special_tokens=False)


def stream_text(
    engine: Engine, prompt: Prompt, params: SamplingParams
) -> Generator[str, None, None]:
    """The answer to a prompt; Ctrl-C ends it between two steps of the engine, never inside one."""
    stream = engine.stream(prompt, params)
    with _interrupts_noted() as interrupted, closing(stream) as outputs:
        for output in outputs:
            if interrupted():
                raise KeyboardInterrupt
            if output.text:  # none while a character is incomplete
                yield output.text


@contextmanager
def _interrupts_noted() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C only makes the yielded function true; a second one leaves the program."""
    noted = False

    def note(signum: int, frame: FrameType | None) -> None:
        nonlocal noted
        if noted:
            raise click.Abort
        noted = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, before)
