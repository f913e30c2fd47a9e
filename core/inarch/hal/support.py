"""The one answer type of every capability question: yes, or no with reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a kernel (or facet) can serve some static facts.

    A refusal without a reason cannot be constructed. `cost` orders two candidates that both say
    yes: the lower one wins.
    """

    ok: bool
    reasons: tuple[str, ...] = ()
    cost: float = 1.0

    def __post_init__(self) -> None:
        if not self.ok and not any(self.reasons):
            raise ValueError("a refusal needs a reason: use no('why')")

    def __bool__(self) -> bool:
        return self.ok

    @property
    def why(self) -> str:
        return "; ".join(self.reasons)


YES = Support(True)


def yes(*caveats: str, cost: float = 1.0) -> Support:
    """Agree, optionally with caveats that `inarch doctor` prints."""
    return Support(True, caveats, cost)


def no(*reasons: str) -> Support:
    """Refuse; at least one reason is required."""
    return Support(False, reasons)
