"""One state as it comes about: its expressions are taken in order, in the event loop.

The program that adds them runs ahead and stands still only where it reads a value. Tracks of several
states, and of the forks of one, advance side by side: that is what fills the engine's batches.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from inarch.errors import InarchError
from inarch.lang.errors import Place, ProgramError
from inarch.lang.executors.executor import Executor
from inarch.lang.expressions import (
    Expression,
    Gen,
    Image,
    RoleBegin,
    RoleEnd,
    ScopeBegin,
    ScopeEnd,
    Select,
    Text,
)
from inarch.lang.loop import submit
from inarch.lang.transcript import Transcript


@dataclass(frozen=True)
class Event:
    """New text. name: of the variable that it belongs to, if the model wrote it."""

    text: str
    name: str | None = None
    meta: Mapping[str, Any] | None = None  # with the last text of a variable


@dataclass(frozen=True)
class Call:
    """What one generation call took: times on the clock of time.monotonic, tokens."""

    name: str
    kind: Literal["gen", "select", "fork"]
    begun_s: float
    ended_s: float
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Branch(Expression):
    """Others go on from here: `copies` is told a transcript for each of them."""

    copies: Future[list[Transcript]]
    count: int


@dataclass(frozen=True)
class Reach(Expression):
    """Tells that all before it is done."""

    reached: Future[None]


@dataclass(frozen=True)
class Raise(Expression):
    """The program itself failed here."""

    error: ProgramError


class Track:
    """Values are futures by name; whatever goes wrong ends the track, and all of them."""

    def __init__(
        self,
        executor: Executor,
        defaults: Mapping[str, Any],
        begin: Future[list[Transcript]] | None = None,
        number: int = 0,
    ) -> None:
        """begin: the transcripts from which forks go on, this one being the one of that number."""
        self.executor, self.defaults = executor, defaults
        self.values: dict[str, Future[Any]] = {}
        self.meta: dict[str, dict[str, Any]] = {}
        self.events: list[Event] = []
        self.calls: list[Call] = []
        self.forks: list[Track] = []
        self.transcript = Transcript()
        self.error: ProgramError | None = None
        self._begin, self._number = begin, number
        self._waiting: deque[tuple[Expression, Place]] = deque()
        self._scopes: dict[str, int] = {}  # where a scope's text begins in the events
        self._running = False
        self._lock = threading.Lock()
        self._listeners: list[Future[None]] = []

    def add(self, expression: Expression, place: Place) -> None:
        """Take one more expression, in its turn."""
        if isinstance(expression, Gen | Select | ScopeEnd) and expression.name is not None:
            self.values[expression.name] = Future()
        with self._lock:
            self._waiting.append((expression, place))
            if self._running:
                return
            self._running = True
        submit(self._run())

    def heard(self, after: int, ends: Sequence[Future[Any]]) -> Future[None]:
        """Done as soon as there are more events than `after`, or one of `ends` is done."""
        future: Future[None] = Future()
        with self._lock:
            over = self.error is not None or any(end.done() for end in ends)
            if len(self.events) > after or over:
                future.set_result(None)
            else:
                self._listeners.append(future)
        return future

    def fail(self, error: Exception) -> None:
        """The program itself raised `error`: nothing that waits is done any more."""
        place = Place.of_caller()
        told = (
            error
            if isinstance(error, ProgramError)
            else ProgramError(f"{type(error).__name__}: {error}", Place.of_error(error))
        )
        self.add(Raise(told), place)

    async def _run(self) -> None:
        if self._begin is not None:
            await self._take_up()
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                expression, place = self._waiting.popleft()
            try:
                if self.error is not None:
                    raise self.error
                await self._take(expression)
            except ProgramError as error:
                self._give_up(expression, error)
            except InarchError as error:
                self._give_up(expression, ProgramError(str(error), place))

    async def _take_up(self) -> None:
        assert self._begin is not None
        begin, self._begin = self._begin, None
        try:
            self.transcript = (await asyncio.wrap_future(begin))[self._number]
        except ProgramError as error:
            self.error = error

    async def _take(self, expression: Expression) -> None:
        match expression:
            case Gen():
                await self._generate(expression)
            case Select():
                await self._select(expression)
            case Branch(copies, count):
                begun_s = time.monotonic()
                await self.executor.prepare(self.transcript)
                self._called("", "fork", begun_s)
                copies.set_result([self.transcript.copy() for _ in range(count)])
            case Reach(reached):
                reached.set_result(None)
                self._wake()
            case Raise(error):
                raise error
            case _:
                self._write(expression)

    def _write(self, expression: Expression) -> None:
        """What needs no model."""
        match expression:
            case Text(text):
                self.transcript.add(text)
                self._tell(Event(text))
            case RoleBegin(role):
                self.transcript.begin(role)
            case RoleEnd(role):
                self.transcript.end(role)
            case ScopeBegin(name):
                self._scopes[name] = len(self.events)
            case ScopeEnd(name):
                text = "".join(event.text for event in self.events[self._scopes.pop(name) :])
                self.values[name].set_result(text)
                self._wake()
            case Image():
                raise InarchError("this model reads no pictures yet")

    async def _generate(self, gen: Gen) -> None:
        params = gen.params({**self.executor.defaults(), **self.defaults})
        begun_s = time.monotonic()
        texts, metas = [""] * params.n, [dict[str, Any]() for _ in range(params.n)]
        async for piece in self.executor.generate(self.transcript, params):
            texts[piece.sample] += piece.text
            metas[piece.sample] = dict(piece.meta or {})
            if piece.sample == 0:
                self._tell(Event(piece.text, gen.name, piece.meta))
        self._called(gen.name, "gen", begun_s, metas)
        self.transcript.add(texts[0])
        found = [_read(text, gen.model) for text in texts]
        several = params.n > 1
        self._set(
            gen.name, found if several else found[0], {"samples": metas} if several else metas[0]
        )

    async def _select(self, select: Select) -> None:
        method, begun_s = select.method, time.monotonic()
        scored = await self.executor.score(
            self.transcript, select.choices, method.needs_unconditional
        )
        self._called(select.name, "select", begun_s)
        decision = method(scored)
        chosen = scored[decision.index]
        self.transcript.add(chosen.text)
        self._tell(Event(chosen.text, select.name, {}))
        logprobs = [list(zip(choice.logprobs, choice.tokens, strict=True)) for choice in scored]
        self._set(select.name, chosen.text, {**decision.meta, "input_token_logprobs": logprobs})

    def _called(
        self,
        name: str | None,
        kind: Literal["gen", "select", "fork"],
        begun_s: float,
        samples: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        first = samples[0] if samples else {}
        written = sum(sample.get("completion_tokens") or 0 for sample in samples)
        prompt, cached = (first.get(f"{part}_tokens") or 0 for part in ("prompt", "cached"))
        self.calls.append(
            Call(name or "", kind, begun_s, time.monotonic(), prompt, cached, written)
        )

    def _set(self, name: str | None, value: Any, meta: dict[str, Any]) -> None:
        if name is not None:
            self.meta[name] = meta
            self.values[name].set_result(value)
            self._wake()

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        self._wake()

    def _wake(self) -> None:
        """Who listens looks again."""
        with self._lock:
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.set_result(None)

    def _give_up(self, expression: Expression, error: ProgramError) -> None:
        self.error = error
        match expression:
            case Gen(name=str(name)) | Select(name=str(name)) | ScopeEnd(name=name):
                self.values[name].set_exception(error)
            case Branch(copies):
                copies.set_exception(error)
            case Reach(reached):
                reached.set_result(None)
        self._wake()


def _read(text: str, model: type[Any] | None) -> Any:
    """As an object of the pydantic class, if one was given."""
    if model is None:
        return text
    read: Callable[[str], Any] = model.model_validate_json
    try:
        return read(text)
    except ValueError as error:
        raise InarchError(
            f"the answer is no {model.__name__}: {' '.join(str(error).split())}; it may have been"
            " cut off: raise max_tokens"
        ) from None
