"""Programs: functions whose first argument is a state."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, ParamSpec, overload

from inarch.errors import InarchError, InvalidRequestError
from inarch.lang.backend import Backend, executor_for
from inarch.lang.errors import Place, ProgramError
from inarch.lang.fibers import Job, drive, drive_async, drive_threads, wait
from inarch.lang.loop import submit
from inarch.lang.prefix import common_prefix
from inarch.lang.state import State
from inarch.lang.track import Track
from inarch.lang.transcript import Transcript
from inarch.lang.words import WORDS, sampling_fields

P = ParamSpec("P")

AT_ONCE = 1024  # programs of a batch
TAKEN = ("backend", "stream")  # what `run` itself takes


class Program(Generic[P]):
    """What @function makes of a function. sampling arguments hold for every gen that sets none."""

    def __init__(
        self,
        func: Callable[..., Any],
        bound: Mapping[str, Any] | None = None,
        num_api_spec_tokens: int | None = None,
    ) -> None:
        if num_api_spec_tokens is not None and num_api_spec_tokens < 1:
            raise InvalidRequestError(
                f"num_api_spec_tokens must be 1 or more, got {num_api_spec_tokens}"
            )
        self.func, self._bound, self._ahead = func, dict(bound or {}), num_api_spec_tokens
        functools.update_wrapper(self, func)
        self.arguments = _arguments(func)

    def bind(self, **arguments: Any) -> Program[P]:
        """The same program with some arguments given. Raises ProgramError for others."""
        self._check(inspect.signature(self.func).bind_partial, (), arguments)
        return Program(self.func, self._bound | arguments, self._ahead)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Inside another program: run it on that one's state. Outside: as `run`."""
        if args and isinstance(args[0], State):
            return self.func(*args, **(self._bound | kwargs))
        return self.run(*args, **kwargs)

    def run(
        self,
        *args: Any,
        backend: Backend | None = None,
        stream: bool = False,
        **kwargs: Any,
    ) -> State:
        """Run it to its end, or with stream=True only begin it. Raises ProgramError.

        kwargs: the program's arguments, and sampling parameters such as temperature.
        """
        state, call = self._prepare(backend, args, kwargs)
        if stream:
            threading.Thread(target=_quietly, args=(call,), daemon=True).start()
            return State(state._track, from_outside=True)
        return call()

    async def run_async(self, *args: Any, backend: Backend | None = None, **kwargs: Any) -> State:
        """As `run`, in an event loop, which is not held up."""
        return await drive_async(self._prepare(backend, args, kwargs)[1])

    def stream(self, *args: Any, backend: Backend | None = None, **kwargs: Any) -> State:
        return self.run(*args, backend=backend, stream=True, **kwargs)

    def run_batch(
        self,
        batch: Iterable[Mapping[str, Any]],
        *,
        backend: Backend | None = None,
        num_threads: int | Literal["auto"] = "auto",
        progress_bar: bool = False,
        generator_style: bool = False,
        **sampling: Any,
    ) -> Any:
        """Run it once for each set of arguments, many side by side: their states, in order.

        num_threads: "auto" runs all programs in this thread, and finds what they begin with alike
        by running one more on placeholders up to its first call; programs that do or wait for other
        things, such as the web, want so many threads of their own, and are run as often as they are
        asked for. generator_style: an iterator instead of a list. A state whose program failed says
        so by `error()` and raises it when it is read.
        """
        several = list(batch)
        if wrong := [one for one in several if not isinstance(one, Mapping)]:
            raise InvalidRequestError(
                f"a batch is a list of dictionaries of arguments, not of {type(wrong[0]).__name__}"
            )
        if num_threads != "auto" and num_threads < 1:
            raise InvalidRequestError(f"num_threads must be 1 or more, got {num_threads}")
        made = [
            self._prepare(backend, (), {**sampling, **arguments}, held=num_threads == "auto")
            for arguments in several
        ]
        if len(made) > 1 and num_threads == "auto":
            with contextlib.suppress(ProgramError):  # each of them will say so
                self.cache(backend=backend)
        calls = [functools.partial(_quietly, call) for _, call in made]
        if num_threads == "auto":
            tracks = [state._track for state, _ in made]
            ended = drive(
                [Job(c, t.opening, t.release) for c, t in zip(calls, tracks, strict=True)], AT_ONCE
            )
        else:
            ended = drive_threads(calls, num_threads)
        states = _in_order([state for state, _ in made], _with_bar(ended, len(made), progress_bar))
        return states if generator_style else list(states)

    def trace(self, **arguments: Any) -> Transcript:
        """What every run begins with, whatever the arguments that are not given here."""
        self._check(inspect.signature(self.func).bind_partial, (), arguments)
        return common_prefix(self.func, {**self._bound, **arguments})

    def cache(self, *, backend: Backend | None = None, **arguments: Any) -> Transcript:
        """Have that computed once, before runs that share it; returns it. Raises ProgramError."""
        prefix, executor = self.trace(**arguments), executor_for(backend)
        try:
            if prefix.chat or prefix.content:
                wait(submit(executor.prepare(prefix)))
        except InarchError as error:
            raise ProgramError(str(error), Place.of_function(self.func)) from error
        return prefix

    def _check(
        self,
        bind: Callable[..., object],
        args: Sequence[Any],
        arguments: Mapping[str, Any],
    ) -> None:
        try:
            bind(None, *args, **arguments)
        except TypeError as error:
            place, takes = Place.of_function(self.func), ", ".join(self.arguments) or "nothing"
            raise ProgramError(
                f"{error}; the program takes {takes}, and run() words such as temperature", place
            ) from None

    def _prepare(
        self,
        backend: Backend | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        held: bool = False,
    ) -> tuple[State, Callable[[], State]]:
        given = {**self._bound, **kwargs}
        words = {k: v for k, v in given.items() if k in WORDS and k not in self.arguments}
        arguments = {k: v for k, v in given.items() if k not in words}
        self._check(inspect.signature(self.func).bind, args, arguments)
        track = Track(executor_for(backend), sampling_fields(words), ahead=self._ahead, held=held)
        state = State(track)

        def call() -> State:
            try:
                track.returned = self.func(state, *args, **arguments)
                state.finish()
            except BaseException as error:
                told = ProgramError.of(error)
                track.abandon(told)
                if isinstance(error, InarchError):
                    raise told from error
                raise
            return state

        return state, call


def _arguments(body: Callable[..., Any]) -> list[str]:
    """Of a program, without its state. Raises InvalidRequestError for what can be none."""
    name = getattr(body, "__name__", repr(body))
    if inspect.iscoroutinefunction(body) or inspect.isgeneratorfunction(body):
        raise InvalidRequestError(
            f"{name} must be a plain function: `s += ...` returns at once anyway, and"
            f" `await {name}.run_async(...)` runs it in an event loop"
        )
    parameters = list(inspect.signature(body).parameters)
    if not parameters:
        raise InvalidRequestError(f"{name} needs a state as its first argument: def {name}(s, ...)")
    if taken := set(parameters) & set(TAKEN):
        raise InvalidRequestError(
            f"{name} cannot have an argument named {min(taken)}: run(...) takes that itself"
        )
    return parameters[1:]


def _quietly(call: Callable[[], State]) -> None:
    """A failure stays with its state: the other programs of a batch go on."""
    with contextlib.suppress(Exception):
        call()


def _with_bar(ended: Iterator[int], total: int, shown: bool) -> Iterator[int]:
    """With a bar on stderr."""
    if not shown:
        yield from ended
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(ended, "Programs", total=total, console=console, transient=True)


def _in_order(states: Sequence[State], ended: Iterator[int]) -> Iterator[State]:
    """Each state as soon as it and those before it are done. Whoever leaves early abandons all."""
    done: set[int] = set()
    try:
        for number, state in enumerate(states):
            while number not in done:
                done.add(next(ended))
            yield state
    finally:
        for state in states:  # of a batch that was left, those that never began too
            state._track.abandon(ProgramError("the batch was left", Place.of_caller()))


@overload
def function(
    body: Callable[..., Any], *, num_api_spec_tokens: int | None = None
) -> Program[Any]: ...
@overload
def function(
    *, num_api_spec_tokens: int | None = None
) -> Callable[[Callable[..., Any]], Program[Any]]: ...
def function(
    body: Callable[..., Any] | None = None, *, num_api_spec_tokens: int | None = None
) -> Any:
    """Make a program: `@function def ask(s, question): s += question; s += gen("answer")`.

    num_api_spec_tokens: of APIs that charge every call its whole prompt, ask for so many tokens at
    once, without the gens' stops, and look there for what the program says and generates next in
    that message. Holds for gens that say nothing of their end but `stop`, on OpenAI(...); what runs
    here caches prompts instead.
    """
    if body is None:
        return functools.partial(function, num_api_spec_tokens=num_api_spec_tokens)
    return Program(body, num_api_spec_tokens=num_api_spec_tokens)
