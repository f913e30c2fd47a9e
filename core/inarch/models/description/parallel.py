"""Several mixers on one norm, as data: their results are added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inarch.models.parameters import Parameters, nested

if TYPE_CHECKING:
    from inarch.models.description.model import Mixer


@dataclass(frozen=True)
class Branch:
    """One of them; the scales multiply what it is given and what it gives."""

    mixer: Mixer
    in_scale: float = 1.0
    out_scale: float = 1.0


@dataclass(frozen=True)
class ParallelMixers:
    """The sum of what the branches give, all of which read the same."""

    branches: tuple[Branch, ...]

    def parameters(self, hidden: int) -> Parameters:
        return nested(
            **{str(i): branch.mixer.parameters(hidden) for i, branch in enumerate(self.branches)}
        )
