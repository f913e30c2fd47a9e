"""What an op is and what a kernel is.

An *op* is declared once, as a documented function whose body is the plain PyTorch reference. A
*kernel* is one implementation of it, given by a backend, with the conditions under which it applies.
A composite op names its parts; its reference takes them as keyword arguments, so that a backend
which replaces only a part speeds up the composite too:

    @op()
    def rms_norm(x, weight, eps): ...

    @op(parts=[rms_norm])
    def add_rms_norm(x, residual, weight, eps, *, rms_norm=rms_norm): ...
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar

from inarch.hal.support import YES, Support

Facts = Mapping[str, Any]
P = ParamSpec("P")
R = TypeVar("R")


class Residency(enum.Enum):
    """How freely a choice may fall back."""

    PURE = "pure"  # a function of its inputs
    STATE = "state"  # writes KV or other state: falls back on the same device only
    COLLECTIVE = "collective"  # every rank must choose the same kernel


@dataclass(frozen=True, eq=False)
class Op(Generic[P, R]):
    """A named tensor operation. Calling it runs the reference (composites: of reference parts)."""

    name: str
    reference: Callable[P, R]
    residency: Residency = Residency.PURE
    parts: tuple[Op[..., Any], ...] = ()
    tolerance: Mapping[str, float] = field(default_factory=dict)  # dtype name -> max relative error

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.reference(*args, **kwargs)


DEFAULT_TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}


def op(
    *,
    residency: Residency = Residency.PURE,
    parts: Sequence[Op[..., Any]] = (),
    tolerance: Mapping[str, float] = DEFAULT_TOLERANCE,
) -> Callable[[Callable[P, R]], Op[P, R]]:
    """Declare an op; the decorated function is its reference and its documentation."""

    def declare(reference: Callable[P, R]) -> Op[P, R]:
        declared = Op(reference.__name__, reference, residency, tuple(parts), dict(tolerance))
        object.__setattr__(declared, "__doc__", reference.__doc__)
        return declared

    return declare


def always(facts: Facts) -> Support:
    return YES


@dataclass(frozen=True)
class Kernel:
    """One implementation of an op.

    `implementation` is the callable, or "package.module:attribute", imported when the kernel is
    first chosen. `supports` sees static facts only (dtypes, head sizes, ...: what each op's call
    site binds with) and answers yes, or no with a reason; an exception in it is a fault.
    """

    op: str
    name: str  # unique for the op
    implementation: Callable[..., Any] | str
    supports: Callable[[Facts], Support] = always

    def load(self) -> Callable[..., Any]:
        if not isinstance(self.implementation, str):
            return self.implementation
        module, _, attribute = self.implementation.partition(":")
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return loaded
