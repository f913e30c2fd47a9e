"""What a program holds in its hands: the state it adds to, reads from, forks and joins."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from inarch.errors import InvalidRequestError
from inarch.lang.drawing import drawn
from inarch.lang.errors import Place, ProgramError
from inarch.lang.events import Variable
from inarch.lang.expressions import (
    Expression,
    Role,
    RoleBegin,
    RoleEnd,
    ScopeBegin,
    ScopeEnd,
    parts_of,
)
from inarch.lang.fibers import wait
from inarch.lang.forks import Forks
from inarch.lang.listening import Listening
from inarch.lang.track import Branch, Reach, Track
from inarch.lang.transcript import Transcript

T = TypeVar("T")
V = TypeVar("V")


class State:
    """`s += expression` adds and returns at once; `s[name]` waits until that value is there."""

    def __init__(self, track: Track, *, from_outside: bool = False) -> None:
        """from_outside: in the hands of who began a program that may still be running; what it has
        not said yet is waited for."""
        self._track, self._from_outside = track, from_outside

    @property
    def returned(self) -> Any:
        """What the program's function gave back."""
        return self._track.returned

    # ---- adding ----

    def __iadd__(self, other: Expression | State | str) -> State:
        if isinstance(other, State):
            if other is not self:
                raise InvalidRequestError("a state is not added to another: fork and join it")
            return self  # s += s.user("..."), which has been added already
        place = Place.of_caller()
        for part in parts_of(other):
            self._track.add(part, place)
        return self

    @contextlib.contextmanager
    def _message(self, role: Role) -> Iterator[State]:
        self.__iadd__(RoleBegin(role))
        yield self
        self.__iadd__(RoleEnd(role))

    @overload
    def system(self, content: None = None) -> contextlib.AbstractContextManager[State]: ...
    @overload
    def system(self, content: Expression | str) -> State: ...
    def system(self, content: Expression | str | None = None) -> Any:
        """Add a message; without content, `with s.system(): ...` adds what is added inside."""
        return self._add_message("system", content)

    @overload
    def user(self, content: None = None) -> contextlib.AbstractContextManager[State]: ...
    @overload
    def user(self, content: Expression | str) -> State: ...
    def user(self, content: Expression | str | None = None) -> Any:
        return self._add_message("user", content)

    @overload
    def assistant(self, content: None = None) -> contextlib.AbstractContextManager[State]: ...
    @overload
    def assistant(self, content: Expression | str) -> State: ...
    def assistant(self, content: Expression | str | None = None) -> Any:
        return self._add_message("assistant", content)

    def _add_message(self, role: Role, content: Expression | str | None) -> Any:
        if content is None:
            return self._message(role)
        with self._message(role):
            self.__iadd__(content)
        return self

    @contextlib.contextmanager
    def var_scope(self, name: str) -> Iterator[State]:
        """The text that is added inside becomes the variable `name`."""
        self.__iadd__(ScopeBegin(name))
        yield self
        self.__iadd__(ScopeEnd(name))

    # ---- reading ----

    def __getitem__(self, name: str) -> Any:
        """The value of a variable, as soon as it is there. Raises KeyError, ProgramError."""
        return self._variable(name).value

    def __setitem__(self, name: str, value: Any) -> None:
        self.set_var(name, value)

    def __contains__(self, name: str) -> bool:
        return name in self._track.values

    def get_var(self, name: str) -> Any:
        return self[name]

    def set_var(self, name: str, value: Any) -> None:
        self._set(name, Variable(value))

    def value(self, name: str, kind: type[V]) -> V:
        """As `state[name]`, for type checkers: of the pydantic class that `gen` was given, or str."""
        found = self[name]
        if not isinstance(found, kind):
            raise InvalidRequestError(
                f"{name} is of type {type(found).__name__}, not {kind.__name__}", param=name
            )
        return found

    def get_meta_info(self, name: str) -> Mapping[str, Any]:
        """Token counts, the reason of the end and, where asked for, log-probabilities."""
        return self._variable(name).meta

    def _variable(self, name: str) -> Variable:
        track = self._track
        if self._from_outside:
            wait(track.heard(lambda: name in track.values or track.over))
        if name not in track.values:
            if track.error is not None:
                self._raise()
            known = ", ".join(track.values) or "none"
            raise KeyError(f"the program has set no variable {name!r}; set are: {known}")
        return self._result(track.values[name])

    def _set(self, name: str, variable: Variable) -> None:
        known: Future[Variable] = Future()
        known.set_result(variable)
        self._track.values[name] = known

    def _result(self, future: Future[T]) -> T:
        try:
            return wait(future)
        except ProgramError:
            self._track.told = True
            raise

    def _raise(self) -> None:
        self._track.told = True
        if self._track.error is not None:
            raise self._track.error

    def __str__(self) -> str:
        return f"ProgramState({self.text()})"

    def text(self) -> str:
        """All text so far, of all messages, without what the chat template puts around them."""
        self.sync()
        return "".join(event.text for event in self._track.events if not event.aside)

    def messages(self) -> list[Mapping[str, Any]]:
        """The messages so far, as OpenAI's API has them."""
        self.sync()
        return self._track.transcript.as_messages()

    def sync(self) -> None:
        """Wait until all that was added has run; from outside, all of the program. Raises
        ProgramError."""
        if self._from_outside:
            wait(self._track.heard(lambda: self._track.over))
            self._raise()
        reached: Future[None] = Future()
        self._track.add(Reach(reached), Place.of_caller())
        self._result(reached)

    def error(self) -> ProgramError | None:
        """What went wrong, if anything, once all that was added has run."""
        with contextlib.suppress(ProgramError):
            self.sync()
        return self._track.error

    def draw(self, path: str | Path | None = None) -> str:
        """A picture of all calls so far, of this state and its forks, in time: SVG, also to a file."""
        self.sync()
        picture = drawn(self._track)
        if path is not None:
            Path(path).write_text(picture, encoding="utf-8")
        return picture

    # ---- streaming ----

    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        """The text as it comes: of a variable, or all of it up to the program's end; inside of the
        program, up to what has been added. Raises KeyError, ProgramError."""
        for event in self._listening(var_name):
            if event.text:
                yield event.text

    @overload
    def text_async_iter(
        self, var_name: str | None = None, return_meta_data: Literal[False] = False
    ) -> AsyncIterator[str]: ...
    @overload
    def text_async_iter(
        self, var_name: str, return_meta_data: Literal[True]
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]: ...
    async def text_async_iter(
        self, var_name: str | None = None, return_meta_data: bool = False
    ) -> AsyncIterator[Any]:
        """As `text_iter`, in an event loop; with return_meta_data (text, meta information)."""
        async for event in self._listening(var_name):
            if return_meta_data and (event.text or event.meta):
                yield event.text, event.meta or {}
            elif event.text and not return_meta_data:
                yield event.text

    def _listening(self, var_name: str | None) -> Listening:
        return Listening(self._track, var_name, self._end_of(var_name), self._check_end)

    def _check_end(self, var_name: str | None) -> None:
        if self._track.error is not None:
            self._raise()
        if var_name is not None:
            self._variable(var_name)  # raises KeyError if it never came

    def _end_of(self, var_name: str | None) -> Callable[[], bool]:
        """Tells when no more of the text comes."""
        track = self._track
        if var_name is not None:
            if not self._from_outside and var_name not in track.values:
                self._variable(var_name)
            return lambda: (
                (var_name in track.values and track.values[var_name].done()) or track.over
            )
        if self._from_outside:
            return lambda: track.over
        reached: Future[None] = Future()
        track.add(Reach(reached), Place.of_caller())
        return lambda: reached.done()

    # ---- branching ----

    def fork(self, size: int = 1) -> Forks:
        """So many states that go on from here, each on its own; this one may go on as well."""
        if size < 1:
            raise InvalidRequestError(f"fork needs a size of 1 or more, got {size}", param="size")
        copies: Future[list[Transcript]] = Future()
        self._track.add(Branch(copies, size), Place.of_caller())
        return Forks(self, [State(self._child(copies, number)) for number in range(size)])

    @contextlib.contextmanager
    def copy(self) -> Iterator[State]:
        """`with s.copy() as other: ...`: one fork, which joins at the end."""
        with self.fork(1) as forks:
            yield forks[0]

    def _append(self, fork: State) -> None:
        fork.sync()
        if any(message.role == "tool" for message in fork._track.transcript.messages):
            raise InvalidRequestError("a fork in which tools were called cannot be appended")
        place = Place.of_caller()
        for expression in list(fork._track.said):
            self._track.add(expression, place)

    def _child(self, copies: Future[list[Transcript]], number: int) -> Track:
        own = self._track
        child = Track(own.executor, own.defaults, copies, number, own.ahead)
        child.values = dict(own.values)
        own.forks.append(child)
        return child

    def finish(self) -> None:
        """The program has said all: wait until all of it ran, of its forks too. Raises ProgramError
        also for a fork, unless the program has heard of it."""
        self.sync()
        for track in self._track.forks:
            heard_of = track.told
            try:
                State(track).finish()
            except ProgramError:
                if not heard_of:
                    raise
        self._track.end()
