"""One state as it comes about: its expressions are taken in order, in the event loop.

The program that adds them runs ahead and stands still only where it reads a value. Tracks of several
states, and of the forks of one, advance side by side: that is what fills the engine's batches.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from inarch.errors import InarchError, InvalidRequestError
from inarch.lang.ahead import may_wait
from inarch.lang.calls import Calls
from inarch.lang.errors import Place, ProgramError
from inarch.lang.events import Call, Event, Variable
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
from inarch.lang.pictures import Picture, read_picture
from inarch.lang.transcript import Transcript


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
class Entry:
    """An expression that waits for its turn, the line that added it, and who waits for it."""

    expression: Expression
    place: Place
    futures: Mapping[str, Future[Variable]] = field(default_factory=dict)

    def fail(self, error: ProgramError) -> None:
        waiting: list[Future[Any]] = list(self.futures.values())
        match self.expression:
            case Branch(copies):
                waiting.append(copies)
            case Reach(reached):
                waiting.append(reached)
        for future in waiting:
            if not future.done():
                future.set_exception(error)


class Track:
    """Values are futures by name; whatever goes wrong ends the track, and all of them."""

    def __init__(
        self,
        executor: Executor,
        defaults: Mapping[str, Any],
        begin: Future[list[Transcript]] | None = None,
        number: int = 0,
        ahead: int | None = None,
        *,
        held: bool = False,
    ) -> None:
        """begin: the transcripts from which forks go on, this one being the one of that number.
        ahead: tokens that an API may be asked for at once, for several gens of a message.
        held: nothing runs until `release`."""
        self.executor, self.defaults, self.ahead = executor, defaults, ahead
        self.values: dict[str, Future[Variable]] = {}
        self.events: list[Event] = []
        self.said: list[Expression] = []  # texts and roles, in order
        self.calls: list[Call] = []
        self.forks: list[Track] = []
        self.transcript = Transcript()
        self.error: ProgramError | None = None
        self.told = False  # the error was raised to somebody
        self.returned: Any = None  # what the program's function gave back
        self.ended = False  # the program has said all, and all of it ran
        self._begin, self._number, self._held = begin, number, held
        self._waiting: deque[Entry] = deque()
        self._scopes: dict[str, list[int]] = {}  # where a scope's text begins in the events
        self._running: Future[None] | None = None
        self._lock = threading.RLock()
        self._listeners: list[tuple[Callable[[], bool], Future[None]]] = []

    # ---- from the program's side, in any thread ----

    def add(self, expression: Expression, place: Place) -> None:
        """Take one more expression, in its turn."""
        entry = Entry(expression, place, {name: Future() for name in _names(expression)})
        with self._lock:
            self.values.update(entry.futures)
            if self.error is None:
                self._waiting.append(entry)
                self._start()
        if self.error is not None:
            entry.fail(self.error)
        self._wake()

    def _start(self) -> None:
        if self._running is None and self._waiting and not self._held:
            self._running = submit(self._run())

    def release(self) -> None:
        with self._lock:
            self._held = False
            self._start()

    def opening(self) -> str:
        """The text that a held track will say before it asks for anything."""
        said = []
        for entry in self._waiting:
            match entry.expression:
                case Text(text):
                    said.append(text)
                case RoleBegin() | RoleEnd() | ScopeBegin() | ScopeEnd():
                    pass
                case _:
                    break
        return "".join(said)

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self.ended or self.error is not None

    def end(self) -> None:
        self.ended = True
        self._wake()

    def abandon(self, error: ProgramError) -> None:
        """Do nothing more: what runs is cancelled, and what waits fails with `error`."""
        with self._lock:
            if self.ended:
                return
            if self._running is not None:
                self._running.cancel()
            self._give_up(error)
        for fork in self.forks:
            fork.abandon(error)

    def heard(self, ready: Callable[[], bool]) -> Future[None]:
        """Done as soon as `ready` is true, which only events, values and the end can make it."""
        future: Future[None] = Future()
        with self._lock:
            if ready():
                future.set_result(None)
            else:
                self._listeners.append((ready, future))
        return future

    # ---- in the event loop ----

    async def _run(self) -> None:
        entry: Entry | None = None
        try:
            while (entry := self._next()) is not None:
                await self._take_up()
                await self._take(entry)
        except ProgramError as error:
            self._give_up(error, entry)
        except InarchError as error:
            self._give_up(ProgramError(str(error), _place(entry)), entry)
        except asyncio.CancelledError:
            self._give_up(ProgramError("it was abandoned", _place(entry)), entry)
            raise
        except Exception as error:  # a bug of ours, or of a choices_method: it must not hang
            told = f"{type(error).__name__}: {error}"
            self._give_up(ProgramError(told, _place(entry)), entry)

    def _next(self) -> Entry | None:
        with self._lock:
            if self._waiting and self.error is None:
                return self._waiting.popleft()
            self._running = None
            return None

    async def _take_up(self) -> None:
        if self._begin is not None:
            begin, self._begin = self._begin, None
            self.transcript = (await asyncio.wrap_future(begin))[self._number]

    async def _take(self, entry: Entry) -> None:
        calls = Calls(self.executor, self.transcript, self.tell, self.calls)
        match entry.expression:
            case Gen() as gen:
                given = {**self.executor.defaults(), **self.defaults}
                ahead = self.ahead if self.executor.writes_ahead and may_wait(gen, given) else None
                self._set(entry, await calls.generate(gen, gen.params(given), ahead))
            case Select() as select:
                self._set(entry, await calls.select(select))
            case Branch(copies, count):
                await calls.branch()
                copies.set_result([self.transcript.copy() for _ in range(count)])
            case Reach(reached):
                reached.set_result(None)
                self._wake()
            case ScopeEnd(name):
                begun = self._scopes[name].pop()
                told = [event.text for event in self.events[begun:] if not event.aside]
                self._set(entry, {name: Variable("".join(told))})
            case Image(source):
                self._show(await asyncio.to_thread(read_picture, source))
            case expression:
                self._write(expression)

    def _show(self, picture: Picture) -> None:
        if self.executor.no_pictures:
            raise InvalidRequestError(self.executor.no_pictures, param="image")
        self.transcript.show(picture)
        self.said.append(Image(picture))

    def _write(self, expression: Expression) -> None:
        """What needs no model."""
        match expression:
            case Text(text):
                self.transcript.add(text)
                self.tell(Event(text))
            case RoleBegin(role):
                self.transcript.begin(role)
                self.said.append(expression)
            case RoleEnd(role):
                self.transcript.end(role)
                self.said.append(expression)
            case ScopeBegin(name):
                self._scopes.setdefault(name, []).append(len(self.events))

    def _set(self, entry: Entry, found: Mapping[str, Variable]) -> None:
        for name, future in entry.futures.items():
            future.set_result(found[name])
        self._wake()

    def tell(self, event: Event) -> None:
        if event.text and not event.aside:
            self.said.append(Text(event.text))
        self.events.append(event)
        self._wake()

    def _wake(self) -> None:
        """Who waits for something looks again."""
        with self._lock:
            ready = [future for true, future in self._listeners if true()]
            self._listeners = [entry for entry in self._listeners if entry[1] not in ready]
        for listener in ready:
            listener.set_result(None)

    def _give_up(self, error: ProgramError, entry: Entry | None = None) -> None:
        with self._lock:
            self.error = self.error or error
            left: Sequence[Entry] = [*([] if entry is None else [entry]), *self._waiting]
            self._waiting.clear()
        for one in left:
            one.fail(self.error)
        self._wake()


def _names(expression: Expression) -> Sequence[str]:
    """The variables that it sets."""
    match expression:
        case Gen(name=str(name), reasoning=str()):
            return (name, expression.reasoning_name)
        case Gen(name=str(name)) | Select(name=str(name)) | ScopeEnd(name=name):
            return (name,)
    return ()


def _place(entry: Entry | None) -> Place:
    return Place.of_caller() if entry is None else entry.place
