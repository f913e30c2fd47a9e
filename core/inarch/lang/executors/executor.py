"""What a program asks of whatever runs its generation calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from inarch.lang.choices import Scored
from inarch.lang.tools import CallMade, Tool
from inarch.lang.transcript import Transcript
from inarch.sampling import SamplingParams


@dataclass(frozen=True)
class Wanted:
    """What is to be written. reasoning: its format, if it is to be kept apart from the text.

    required: one of the tools must be called. lora: the adapter to write it with.
    """

    params: SamplingParams
    reasoning: str | None = None
    tools: tuple[Tool, ...] = ()
    required: bool = False
    lora: str | None = None


@dataclass(frozen=True)
class Piece:
    """What is new of one sample. meta comes with its last piece, in SGLang's names."""

    text: str
    sample: int = 0
    meta: Mapping[str, Any] | None = None
    reasoning: str = ""
    calls: tuple[CallMade, ...] = ()


class Executor(Protocol):
    """All methods run in the language's event loop. Errors are InarchError.

    no_pictures: why it cannot be given pictures; "" if it can. writes_ahead: every call is charged
    its whole prompt there, so what num_api_spec_tokens asks for is worth its while.
    """

    no_pictures: str
    writes_ahead: bool

    def defaults(self) -> Mapping[str, Any]:
        """Fields of SamplingParams that the model's makers recommend."""

    def generate(self, transcript: Transcript, wanted: Wanted) -> AsyncGenerator[Piece, None]:
        """What the model writes behind the transcript, which does not change meanwhile.

        The last piece of the first sample leaves `transcript.encoded` such that the text is known
        by its tokens.
        """

    async def prepare(self, transcript: Transcript) -> None:
        """Have it computed once, before several go on from it."""

    async def score(
        self, transcript: Transcript, choices: Sequence[str], unconditional: bool
    ) -> list[Scored]:
        """How likely each choice is behind the transcript."""
