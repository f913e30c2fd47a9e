"""The report of a run as JSON: what was tested, on what, when, and how far each op came."""

from __future__ import annotations

import dataclasses
import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from inarch.conformance.case import Outcome, Result
from inarch.conformance.suite import Suite
from inarch.hal.reference.host import cpu_name
from inarch.version import __version__

FORMAT = 1
LIBRARIES = ("torch", "numpy", "transformers")
ROOFLINE = 5  # a level of figures, which say nothing of right and wrong


@dataclasses.dataclass(frozen=True)
class Standing:
    """How one kernel of one op fared in one dtype on one level."""

    op: str
    kernel: str
    dtype: str
    level: int
    passed: int
    refused: int
    bad: int  # failed, or raised
    reasons: tuple[str, ...]  # of refusals


def standings(results: Sequence[Result]) -> list[Standing]:
    groups: dict[tuple[str, str, str, int], list[Result]] = {}
    for result in results:
        case = result.case
        if case.dtype and case.level != ROOFLINE:
            groups.setdefault((case.facet, case.kernel, case.dtype, case.level), []).append(result)
    return [_standing(key, found) for key, found in sorted(groups.items())]


def _standing(key: tuple[str, str, str, int], results: Sequence[Result]) -> Standing:
    outcomes = Counter(result.outcome for result in results)
    reasons = {r.note for r in results if r.outcome is Outcome.REFUSED}
    return Standing(
        *key,
        passed=outcomes[Outcome.PASSED],
        refused=outcomes[Outcome.REFUSED],
        bad=sum(result.bad for result in results),
        reasons=tuple(sorted(reasons)),
    )


def as_json(suite: Suite, results: Sequence[Result], seconds: float) -> dict[str, Any]:
    package = suite.package
    record = package.record
    return {
        "format": FORMAT,
        "backend": package.backend.name,
        "distribution": record.distribution if record else "inarch",
        "version": record.version if record else __version__,
        "inarch": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "processor": cpu_name(),
            "libraries": {name: metadata.version(name) for name in LIBRARIES},
        },
        "device": _device(suite, results, simulated=False),
        "simulation": _device(suite, results, simulated=True),
        "depth": suite.depth,
        "seconds": round(seconds, 1),
        "outcomes": Counter(result.outcome.value for result in results),
        "levels": _levels(results),
        "ops": [dataclasses.asdict(standing) for standing in standings(results)],
        "roofline": [(r.case.name, r.note) for r in results if r.case.level == ROOFLINE],
        "cases": [_case(result) for result in results],
    }


def _levels(results: Sequence[Result]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for result in results:
        found.setdefault(str(result.case.level), Counter())[result.outcome.value] += 1
    return found


def _device(suite: Suite, results: Sequence[Result], *, simulated: bool) -> dict[str, Any] | None:
    """The device that cases ran on; None if none did."""
    levels = {result.case.level for result in results}
    if not levels - {0} or (
        simulated and 2 not in levels and not isinstance(suite.real, Exception)
    ):
        return None
    subject = suite.simulated if simulated else suite.real
    if isinstance(subject, Exception):
        return None
    info = subject.device.info
    libraries = dict(info.libraries)
    return {"name": info.name, "arch": info.arch, "libraries": libraries}


def _case(result: Result) -> dict[str, Any]:
    found = {
        "id": result.case.id,
        "dtype": result.case.dtype,
        "outcome": result.outcome.value,
        "note": result.note,
        "seconds": round(result.seconds, 3),
    }
    if result.bad:
        found["traceback"] = result.traceback
    return {name: value for name, value in found.items() if value != ""}
