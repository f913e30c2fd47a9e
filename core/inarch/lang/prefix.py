"""What every run of a program begins with: found by running it on placeholders, up to the first
text that depends on an argument or on the model."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NoReturn

from inarch.lang.errors import Place
from inarch.lang.events import Variable
from inarch.lang.expressions import Expression, RoleBegin, RoleEnd, ScopeBegin, ScopeEnd, Text
from inarch.lang.state import State
from inarch.lang.track import Track
from inarch.lang.transcript import Transcript

MARK = "\x00argument\x00"


class _Known(Exception):
    """All of the common prefix is known."""


class _Recorder(Track):
    """Takes text and roles, and stops the program at anything else."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self.values: dict[str, Future[Variable]] = {}
        self.error = None

    def add(self, expression: Expression, place: Place) -> None:
        match expression:
            case Text(text):
                before, mark, _ = text.partition(MARK)
                self.transcript.add(before)
                if mark:
                    raise _Known
            case RoleBegin(role):
                self.transcript.begin(role)
            case RoleEnd(role):
                self.transcript.end(role)
            case ScopeBegin() | ScopeEnd():
                pass
            case _:
                raise _Known


class _Placeholder(str):
    """An argument that is not known: no program may decide anything by it."""

    __slots__ = ()

    def __new__(cls) -> _Placeholder:
        return super().__new__(cls, MARK)

    def _unknown(self, *_: object) -> NoReturn:
        raise _Known

    __bool__ = __len__ = __iter__ = __getitem__ = __contains__ = _unknown
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __call__ = _unknown
    __hash__ = str.__hash__


def common_prefix(body: Callable[..., Any], given: Mapping[str, Any]) -> Transcript:
    """What `body` says with some of its arguments given, before anything depends on the others."""
    recorder = _Recorder()
    names = list(inspect.signature(body).parameters)[1:]
    unknown = {name: _Placeholder() for name in names if name not in given}
    # A program may fail in any way on placeholders; what it said before that stands.
    with contextlib.suppress(Exception):
        body(State(recorder), **{**unknown, **given})
    return recorder.transcript
