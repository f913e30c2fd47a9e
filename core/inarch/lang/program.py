"""Programs: functions whose first argument is a state."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Generic, ParamSpec

from inarch.errors import InvalidRequestError
from inarch.lang.api import SAMPLING
from inarch.lang.executors.executor import Executor
from inarch.lang.fibers import drive, drive_async, wait
from inarch.lang.loop import submit
from inarch.lang.prefix import common_prefix
from inarch.lang.state import State
from inarch.lang.track import Track
from inarch.lang.transcript import Transcript

P = ParamSpec("P")

AT_ONCE = 1024  # programs of a batch

_default: list[Executor] = []


def set_default_backend(executor: Executor | None) -> None:
    """Where programs run that are given no `backend`."""
    _default[:] = [] if executor is None else [executor]


class Program(Generic[P]):
    """What @function makes of a function. sampling arguments hold for every gen that sets none."""

    def __init__(self, body: Callable[..., Any], bound: Mapping[str, Any] | None = None) -> None:
        self._body, self._bound = body, dict(bound or {})
        functools.update_wrapper(self, body)
        parameters = list(inspect.signature(body).parameters)
        if not parameters:
            raise InvalidRequestError(
                f"{body.__name__} needs a state as its first argument: def {body.__name__}(s, ...)"
            )
        self.arguments = parameters[1:]

    def bind(self, **arguments: Any) -> Program[P]:
        """The same program with some arguments given."""
        unknown = set(arguments) - set(self.arguments)
        if unknown:
            raise InvalidRequestError(f"{self._body.__name__} has no argument {min(unknown)}")
        return Program(self._body, self._bound | arguments)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Inside another program: run it on that one's state. Outside: as `run`."""
        if args and isinstance(args[0], State):
            return self._body(*args, **(self._bound | kwargs))
        return self.run(*args, **kwargs)

    def run(
        self,
        *args: Any,
        backend: Executor | None = None,
        stream: bool = False,
        **kwargs: Any,
    ) -> State:
        """Run it to its end, or with stream=True only begin it. Raises ProgramError.

        kwargs: the program's arguments, and sampling parameters such as temperature.
        """
        state, call = self._prepare(backend, args, kwargs)
        if stream:
            threading.Thread(target=_quietly, args=(state, call), daemon=True).start()
            return state
        return call()

    async def run_async(self, *args: Any, backend: Executor | None = None, **kwargs: Any) -> State:
        """As `run`, in an event loop, which is not held up."""
        return await drive_async(self._prepare(backend, args, kwargs)[1])

    def stream(self, *args: Any, backend: Executor | None = None, **kwargs: Any) -> State:
        return self.run(*args, backend=backend, stream=True, **kwargs)

    def run_batch(
        self,
        batch: Sequence[Mapping[str, Any]],
        *,
        backend: Executor | None = None,
        num_threads: int | str = "auto",
        progress_bar: bool = False,
        generator_style: bool = False,
        **sampling: Any,
    ) -> Any:
        """Run it once for each set of arguments, many side by side: their states, in order.

        num_threads: how many at once ("auto": as many as is good); none has a thread of its own.
        generator_style: an iterator instead of a list. A state whose program failed says so by
        `error()` and raises it when it is read.
        """
        at_once = AT_ONCE if num_threads == "auto" else int(num_threads)
        if len(batch) > 1:
            self.cache(backend=backend)
        made = [self._prepare(backend, (), {**sampling, **arguments}) for arguments in batch]
        states = [state for state, _ in made]
        calls = [functools.partial(_quietly, state, call) for state, call in made]
        finished = _with_bar(drive(calls, at_once), len(calls), progress_bar)
        if generator_style:
            return _in_order(states, finished)
        for _ in finished:
            pass
        return states

    def trace(self, **arguments: Any) -> Transcript:
        """What every run begins with, whatever the arguments that are not given here."""
        return common_prefix(self._body, {**self._bound, **arguments})

    def cache(self, *, backend: Executor | None = None, **arguments: Any) -> Transcript:
        """Have that computed once, before runs that share it; returns it."""
        prefix = self.trace(**arguments)
        if prefix.chat or prefix.content:
            wait(submit(_chosen(backend).prepare(prefix)))
        return prefix

    def _prepare(
        self, backend: Executor | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[State, Callable[[], State]]:
        given = {**self._bound, **kwargs}
        sampling = {k: v for k, v in given.items() if k in SAMPLING and k not in self.arguments}
        arguments = {k: v for k, v in given.items() if k not in sampling}
        inspect.signature(self._body).bind(None, *args, **arguments)  # raises TypeError
        state = State(Track(_chosen(backend), sampling))

        def call() -> State:
            state.returned = self._body(state, *args, **arguments)
            state.finish()
            return state

        return state, call


def _chosen(backend: Executor | None) -> Executor:
    if backend is not None:
        return backend
    if not _default:
        raise InvalidRequestError(
            "there is nothing to run on: set_default_backend(Runtime()), or run(backend=...)"
        )
    return _default[0]


def _quietly(state: State, call: Callable[[], State]) -> None:
    """A failure stays with its state: the other programs of a batch go on."""
    try:
        call()
    except Exception as error:
        state.fail(error)


def _with_bar(
    finished: Iterator[tuple[int, Future[None]]], total: int, shown: bool
) -> Iterator[int]:
    """Numbers of programs as they end, with a bar on stderr."""
    if not shown:
        yield from (number for number, _ in finished)
        return
    from rich.console import Console
    from rich.progress import track

    bar = track(finished, "Programs", total=total, console=Console(stderr=True), transient=True)
    yield from (number for number, _ in bar)


def _in_order(states: Sequence[State], finished: Iterator[int]) -> Iterator[State]:
    """Each state as soon as it and those before it are done."""
    done: set[int] = set()
    for number, state in enumerate(states):
        while number not in done:
            done.add(next(finished))
        yield state


def function(body: Callable[..., Any]) -> Program[Any]:
    """Make a program: `@function def ask(s, question): s += question; s += gen("answer")`."""
    return Program(body)
