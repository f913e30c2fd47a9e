"""One HTTP request may hold many prompts of many samples: run them, and merge what they produce.

Whoever writes to the client takes what has come since it last took: a fast client gets every token
by itself, a slow one gets them in lumps, and what waits is never more than the answer. Waking a task
costs as much as writing a token, so tokens may also be written past the task that waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from inarch.engine.outputs import RequestOutput, TokenLogprob
from inarch.errors import InarchError, InvalidRequestError
from inarch.sampling import DEFAULT_TERMS, SamplingParams, Terms

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.answering.prompts import Prompt
    from inarch_server.watching.stopwatch import Stopwatch


@dataclass(slots=True, eq=False)
class Piece:
    """What one choice has produced since it was last taken; taken once, at the end: all of it."""

    index: int  # of the choice: prompts in order, the n samples of each together
    prompt: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None
    matched_stop: int | str | None = None
    completion_tokens: int = 0  # so far, of the whole choice
    cached_tokens: int = 0
    cumulative_logprob: float | None = None  # so far, if logprobs were asked for
    prompt_tokens: int = 0
    vectors: np.ndarray | None = None  # of a prompt to encode
    prompt_logprobs: tuple[TokenLogprob, ...] = ()  # in the first piece, if asked for

    def add(self, output: RequestOutput) -> None:
        self.text += output.text
        self.token_ids += output.token_ids
        self.logprobs += output.logprobs
        self.finish_reason = output.finish_reason
        self.matched_stop = output.matched_stop
        self.completion_tokens = output.completion_tokens
        self.cached_tokens = output.cached_tokens
        self.cumulative_logprob = output.cumulative_logprob
        if output.vectors is not None:
            self.prompt_tokens, self.vectors = output.prompt_tokens, output.vectors
        if output.prompt_logprobs:
            self.prompt_logprobs = output.prompt_logprobs


class Answers:
    """All choices of one HTTP request. Leaving it, for whatever reason, aborts what still runs."""

    def __init__(
        self,
        engine: AsyncEngine,
        ids: Sequence[str],
        prompts: Sequence[Prompt],
        params: Sequence[SamplingParams],
        stopwatch: Stopwatch,
        terms: Terms = DEFAULT_TERMS,
        *,
        keep_text: bool = False,
    ) -> None:
        self._engine = engine
        self.ids, self.prompts, self.params = ids, prompts, params
        self.stopwatch = stopwatch
        # What each choice said, if somebody will want to read it.
        self.transcript: dict[int, list[str]] | None = {} if keep_text else None
        self._terms = terms
        self._alarm: asyncio.TimerHandle | None = None
        self._begun: list[str] = []  # ids
        self._pending: dict[int, Piece] = {}
        self._completed: dict[int, int] = {}  # tokens so far by choice
        self._cached: dict[int, int] = {}  # tokens of each prompt that were not computed again
        self._first_choice = [0, *accumulate(p.n for p in params)]  # of each prompt
        self.choices = self._unfinished = self._first_choice[-1]
        self._error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Future[None] | None = None  # what a waiting task waits for
        self._write_past: Callable[[], bool] | None = None
        self._over = asyncio.Event()

    def __enter__(self) -> Answers:
        self.stopwatch.send()
        try:
            for number, name in enumerate(self.ids):
                ids, params = self.prompts[number].ids, self.params[number]
                hear = partial(self._hear, number)
                self._begun.append(
                    self._engine.begin(ids, params, hear, request_id=name, terms=self._terms)
                )
        except Exception as error:
            self._fail(error)
        if self._terms.timeout_s is not None:
            self._alarm = self._loop.call_later(self._terms.timeout_s, self._too_late)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        for name in self._begun:
            self._engine.end(name)
        self.stopwatch.stop(self._unfinished)

    async def wait(self) -> None:
        """Until there is something to take. Raises what went wrong, once the rest was taken."""
        while not self._pending and self._unfinished and self._error is None:
            self._news = self._loop.create_future()
            await self._news
        if self._error is not None and not self._pending:
            raise self._error

    async def take(self) -> Collection[Piece]:
        """Wait for something new and take all of it, by choice; empty once all is finished."""
        await self.wait()
        return self.take_now()

    def take_now(self) -> Collection[Piece]:
        """All that is new, by choice."""
        pieces, self._pending = self._pending, {}
        return pieces.values()

    def write_past(self, write: Callable[[], bool]) -> None:
        """Let `write` take what comes while a task waits; where it cannot (False), the task wakes.

        The end of the answers, and what goes wrong with them, is always the task's to see.
        """
        self._write_past = write

    async def all(self) -> list[Piece]:
        """Wait until everything is finished; the whole of every choice, in order."""
        await self._over.wait()
        if self._error is not None:
            raise self._error
        return sorted(await self.take(), key=lambda piece: piece.index)

    def usage(self) -> dict[str, Any]:
        """Tokens so far, in OpenAI's words; a prompt counts once, however many samples it has."""
        prompt = sum(len(prompt.ids) for prompt in self.prompts)
        completion = sum(self._completed.values())
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": sum(self._cached.values())},
        }

    def _hear(self, number: int, output: RequestOutput | InarchError) -> None:
        if isinstance(output, RequestOutput):
            self._add(number, output)
        else:
            self._fail(output)

    def _add(self, number: int, output: RequestOutput) -> None:
        index = self._first_choice[number] + output.index
        self.stopwatch.output(index, len(output.token_ids))
        if index not in self._completed:
            # The samples of one prompt share it: only what the first found counts as cached.
            found = self._cached.get(number, output.cached_tokens)
            self._cached[number] = min(found, output.cached_tokens)
            self.stopwatch.begun(output)
        self._completed[index] = output.completion_tokens
        piece = self._pending.get(index)
        if piece is None:
            if not self._pending:
                self._tell()
            piece = self._pending[index] = Piece(index, number)
        piece.add(output)
        if self.transcript is not None:
            self.transcript.setdefault(index, []).append(output.text)
        if output.finish_reason is not None:
            self._unfinished -= 1
            constrained = self.params[number].grammar is not None
            self.stopwatch.finished(index, output, constrained=constrained)
            if not self._unfinished:
                self._over.set()
                self._wake()

    def _too_late(self) -> None:
        self._fail(
            InvalidRequestError(
                f"the request did not finish within its {self._terms.timeout_s:g} s; ask for fewer"
                " tokens, or for more time",
                status=504,
                code="timeout",
            )
        )

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._over.set()
        self._wake()

    def _tell(self) -> None:
        """Something new is about to be there, for whoever waits."""
        if self._write_past is None:
            self._wake()
        else:
            self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        if not self._pending or self._news is None or self._news.done():
            return  # the task has taken it, or is about to
        try:
            if self._write_past is None or not self._write_past():
                self._wake()
        except Exception as error:
            self._fail(error)

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
