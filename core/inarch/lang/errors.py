"""What goes wrong in a program, and where."""

from __future__ import annotations

import contextlib
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inarch.errors import InarchError

# A `with s.user():` adds what ends the message from within contextlib.
NOT_PROGRAMS = (str(Path(__file__).parent), contextlib.__file__)


@dataclass(frozen=True)
class Place:
    """A line of a program."""

    file: str
    line: int
    function: str

    @classmethod
    def of_caller(cls) -> Place:
        """The line outside of this package that is running."""
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(NOT_PROGRAMS):
            frame = frame.f_back
        return cls(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)

    @classmethod
    def of_function(cls, function: Callable[..., Any]) -> Place:
        """Where a program begins."""
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is None:  # an object that can be called
            return cls.of_caller()
        return cls(code.co_filename, code.co_firstlineno, code.co_name)

    @classmethod
    def of_error(cls, error: BaseException) -> Place:
        """The line of the program that raised it, or called what did."""
        places = [
            cls(entry.filename, entry.lineno or 0, entry.name)
            for entry in traceback.extract_tb(error.__traceback__)
            if not entry.filename.startswith(NOT_PROGRAMS)
        ]
        return places[0] if places else cls.of_caller()

    def __str__(self) -> str:
        return f'file "{self.file}", line {self.line}, in {self.function}'


class ProgramError(InarchError):
    """A call of a program failed; `place` is the line that asked for it."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(f"{message} ({place})")
        self.place = place

    @classmethod
    def of(cls, error: BaseException) -> ProgramError:
        """What a program raised itself."""
        if isinstance(error, ProgramError):
            return error
        message = str(error) if isinstance(error, InarchError) else _named(error)
        return cls(message, Place.of_error(error))


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
