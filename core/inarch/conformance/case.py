"""A case: one thing that must hold of a backend, and what came of it."""

from __future__ import annotations

import enum
import time
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from inarch.errors import InarchError, UnsupportedError
from inarch.hal.dispatch import REFERENCE


class Refused(Exception):
    """The backend said no, with this reason: nothing is wrong."""


class Failed(AssertionError):
    """The backend said yes and was wrong: what was, and by how much."""


class Outcome(enum.Enum):
    PASSED = "passed"
    REFUSED = "refused"
    FAILED = "failed"
    ERROR = "error"


@dataclass(frozen=True)
class Case:
    """check: raises Refused or Failed; returns what is worth saying of a pass, or "".

    dtype: the column of the table of support that it counts for; "" for none.
    """

    level: int
    facet: str  # the op or facet that it is about, "package", "engine" ...
    name: str
    check: Callable[[], str]
    kernel: str = ""
    dtype: str = ""

    @property
    def id(self) -> str:
        """What `--case` takes."""
        return "/".join(filter(None, (str(self.level), self.facet, self.kernel, self.name)))


@dataclass(frozen=True)
class Result:
    case: Case
    outcome: Outcome
    note: str  # of a pass; or the reason, or what was wrong
    seconds: float = 0.0
    traceback: str = ""

    @property
    def bad(self) -> bool:
        return self.outcome in (Outcome.FAILED, Outcome.ERROR)


def judge(case: Case) -> Result:
    """Run a case. Only KeyboardInterrupt comes out."""
    started = time.perf_counter()
    result = _judge(case)
    return replace(result, seconds=time.perf_counter() - started)


def _judge(case: Case) -> Result:
    try:
        return Result(case, Outcome.PASSED, case.check())
    except Refused as refusal:
        return Result(case, Outcome.REFUSED, str(refusal))
    except Failed as failure:
        return Result(case, Outcome.FAILED, str(failure))
    except UnsupportedError as refusal:
        # No kernel said yes: the device cannot run the plain reference, or the engine the model.
        refused = case.kernel in ("", REFERENCE)
        return Result(case, Outcome.REFUSED if refused else Outcome.ERROR, str(refusal))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        text = " ".join(str(error).split())
        note = f"{type(error).__name__}: {text}" if text else type(error).__name__
        told = "" if isinstance(error, InarchError) else traceback.format_exc()
        return Result(case, Outcome.ERROR, note, traceback=told)


def generator(*key: object) -> np.random.Generator:
    """Numbers that depend on what a case is called alone: the same on every machine and level."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, key)).encode()))


def require(holds: object, what: str) -> None:
    """Raise Failed with `what` unless it holds."""
    if not holds:
        raise Failed(what)
