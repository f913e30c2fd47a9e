"""Which cases are to be judged."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from inarch.conformance.case import Case, Result, judge
from inarch.conformance.suite import Suite

LEVELS = {
    0: "package hygiene",
    1: "schema without numbers",
    2: "numbers in simulation",
    3: "numbers on the device",
    4: "whole models",
    5: "roofline",
}
TIMED = (0, 5)  # levels with clocks in them, on which cases run alone


@dataclass(frozen=True)
class Wanted:
    """Which cases. Nothing named means all; names may hold * and ?."""

    levels: Collection[int] = (0, 1, 2, 3, 4)
    facets: Collection[str] = ()
    cases: Collection[str] = ()

    def __contains__(self, case: Case) -> bool:
        return (
            case.level in self.levels
            and _matches(case.facet, self.facets)
            and _matches(case.id, self.cases)
        )


def _matches(name: str, patterns: Collection[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def run(suite: Suite, wanted: Wanted) -> Iterator[Result]:
    for level in sorted(wanted.levels):
        yield from (judge(case) for case in suite.cases(level) if case in wanted)
