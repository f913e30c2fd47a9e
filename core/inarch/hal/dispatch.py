"""Choose a kernel for each op once, at start-up, from static facts, and be able to say why.

A choice never comes from an exception: an exception in `supports` is a fault of the plugin, and one
at run time is a fault, not a reason to try another kernel. After `freeze()` no new choice is made.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from inarch.errors import ConfigError, PluginError, UnsupportedError
from inarch.hal.op import Facts, Kernel, Op
from inarch.hal.support import Support

REFERENCE = "reference"
WHY = {
    "preferred": "the best that applies",
    "forced": "--kernels",
    "parts": "made of its parts",
    "reference": "no kernel applies",
}
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Choice:
    """Which kernel serves an op under some facts, and why each other candidate does not."""

    op: str
    facts: tuple[tuple[str, Any], ...]
    kernel: str
    why: str  # "preferred", "forced", "parts" or "reference"
    caveats: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]  # (kernel, reason)


class Dispatcher:
    """Binds ops to kernels of one opened device.

    kernels: what the backend offers, best first where costs are equal.
    overrides: op name (or "*") -> kernel name; the user's `--kernels`.
    strict: refuse every op that would run on the reference.
    """

    def __init__(
        self,
        kernels: Iterable[Kernel] = (),
        *,
        overrides: Mapping[str, str] | None = None,
        strict: bool = False,
    ) -> None:
        self._kernels: dict[str, list[Kernel]] = {}
        for kernel in kernels:
            same = self._kernels.setdefault(kernel.op, [])
            if kernel.name == REFERENCE or any(k.name == kernel.name for k in same):
                raise PluginError(f"two kernels named {kernel.name!r} for op {kernel.op!r}")
            same.append(kernel)
        self._overrides = dict(overrides or {})
        self._strict = strict
        self._frozen = False
        self._bound: dict[tuple[str, tuple[tuple[str, Any], ...]], tuple[Choice, Any]] = {}

    @property
    def choices(self) -> list[Choice]:
        return [choice for choice, _ in self._bound.values()]

    def freeze(self) -> None:
        """No op may be bound to a kernel after this, so that serving never changes its mind."""
        unknown = [
            f"{op}={kernel}"
            for op, kernel in self._overrides.items()
            if op != "*" and not any(choice.op == op for choice in self.choices)
        ]
        everywhere = self._overrides.get("*", REFERENCE)
        if everywhere != REFERENCE and all(choice.kernel != everywhere for choice in self.choices):
            unknown.append(f"*={everywhere}")
        if unknown:
            known = ", ".join(sorted({choice.op for choice in self.choices}))
            raise ConfigError(
                f"--kernels {', '.join(unknown)}: nothing takes it; the ops of the model are {known}"
            )
        self._frozen = True

    def digest(self) -> str:
        """A fingerprint of all choices: equal on all ranks, or the ranks must not serve together."""
        lines = sorted(f"{c.op} {c.facts} {c.kernel}" for c in self.choices)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    def bind(self, op: Op[..., Any], **facts: Any) -> Callable[..., Any]:
        """Return the callable that serves `op` under `facts`: a direct call from here on."""
        bound = self.select(op.name, op.reference, parts=op.parts, **facts)
        result: Callable[..., Any] = bound
        return result

    def select(
        self,
        name: str,
        reference: F,
        *,
        parts: tuple[Op[..., Any], ...] = (),
        composite: bool = False,
        **facts: Any,
    ) -> F:
        """Choose among the kernels for `name`, falling back to `reference`.

        For facets that are classes rather than ops (attention, linear) the chosen class is
        returned, to be started by the caller. composite: the reference binds its own parts.
        """
        key = (name, tuple(sorted(facts.items())))
        if key in self._bound:
            found: F = self._bound[key][1]
            return found
        if self._frozen:
            raise PluginError(f"op {name} with {facts} was first asked for after start-up")
        choice, kernel = self._choose(name, key[1], facts, composite=composite or bool(parts))
        if kernel is not None:
            implementation = _load(kernel)
        elif parts:
            bound_parts = {part.name: self.bind(part, **facts) for part in parts}
            implementation = functools.partial(reference, **bound_parts)
        else:
            implementation = reference
        self._bound[key] = (choice, implementation)
        chosen: F = implementation
        return chosen

    def _choose(
        self, name: str, key: tuple[tuple[str, Any], ...], facts: Facts, *, composite: bool
    ) -> tuple[Choice, Kernel | None]:
        forced = self._overrides.get(name, self._overrides.get("*"))
        accepted: list[tuple[float, int, Kernel, Support]] = []
        rejected: list[tuple[str, str]] = []
        for order, kernel in enumerate(self._kernels.get(name, [])):
            if forced not in (None, kernel.name):
                rejected.append((kernel.name, f"--kernels asks for {forced}"))
                continue
            answer = _ask(kernel, facts)
            if answer:
                accepted.append((answer.cost, order, kernel, answer))
            else:
                rejected.append((kernel.name, answer.why))
        if accepted:
            accepted.sort(key=lambda candidate: candidate[:2])
            (_, _, best, answer), *others = accepted
            rejected += [(k.name, f"behind {best.name}, cost {cost:g}") for cost, _, k, _ in others]
            why = "forced" if forced else "preferred"
            return Choice(name, key, best.name, why, answer.reasons, tuple(rejected)), best
        if name in self._overrides and forced != REFERENCE:
            reasons = "; ".join(f"{k}: {why}" for k, why in rejected) or "no such kernel"
            raise UnsupportedError(f"--kernels {name}={forced} cannot be used: {reasons}")
        if self._strict and not composite:
            reasons = "; ".join(f"{k}: {why}" for k, why in rejected) or "the backend has no kernel"
            raise UnsupportedError(f"--strict: op {name} would run on the reference ({reasons})")
        why = "parts" if composite else REFERENCE
        return Choice(name, key, why, why, (), tuple(rejected)), None


def explain(choices: Iterable[Choice]) -> list[tuple[str, str, int, str]]:
    """(op, kernel, bindings, why) of each op: those that differ in their facts alone count together."""
    counted = Counter((choice.op, choice.kernel, _why(choice)) for choice in choices)
    return [(op, kernel, times, why) for (op, kernel, why), times in sorted(counted.items())]


def _why(choice: Choice) -> str:
    passed_over = [f"not {kernel}: {reason}" for kernel, reason in choice.rejected]
    return "; ".join([WHY[choice.why], *choice.caveats, *passed_over])


def _ask(kernel: Kernel, facts: Facts) -> Support:
    try:
        answer = kernel.supports(facts)
    except Exception as error:
        raise PluginError(
            f"kernel {kernel.name!r} of op {kernel.op!r}: supports() raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(answer, Support):
        raise PluginError(
            f"kernel {kernel.name!r} of op {kernel.op!r}: supports() gave {answer!r} instead of yes() "
            "or no('why')"
        )
    return answer


def _load(kernel: Kernel) -> Any:
    try:
        return kernel.load()
    except Exception as error:
        raise PluginError(
            f"kernel {kernel.name!r} of op {kernel.op!r} was chosen, but {kernel.implementation!r} "
            f"cannot be imported: {type(error).__name__}: {error}"
        ) from error
