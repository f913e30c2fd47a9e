"""Write docs/support.md, which op runs where, from the reports of `inarch conformance`.

    python ci/make_support_doc.py [--add REPORT.json ...] [--check]

--add keeps a report in docs/support, without its single cases, in the place of an older one of that
backend: one of a device, one of what is simulated without. --check writes nothing: it fails if the page
is not what its reports say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE, REPORTS = ROOT / "docs" / "support.md", ROOT / "docs" / "support"
DTYPES = ("float32", "bfloat16", "float16")
REFERENCE, DEVICE, SIMULATED = "reference", "device", "*simulated*"
NOT_OPS = {  # in the order of the tables' end
    "pages": "KV pages",
    "steps": "steps, captured where the backend captures",
    "collectives": "collectives between ranks",
    "engine": "whole models",
}
HEAD = """# What runs where

Written by `ci/make_support_doc.py` from the reports of [`inarch conformance`](conformance.md), which
compares ops with float64 and whole models with the reference's answers. A backend without a report is
not on this page.

- **device**: right in every case, on the device named in the report;
- *simulated*: right in every case, on what the backend simulates; never yet seen on the hardware;
- reference: the backend has no kernel; the plain one serves on its device, right in every case too;
- refused: the backend says no, with the reason, and another kernel or the reference serves;
- **WRONG**: it said yes and was wrong.
"""

Report = Mapping[str, Any]
Standing = Mapping[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--add", nargs="*", type=Path, default=[])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for path in options.add:
        keep(json.loads(path.read_text()))
    page = written([json.loads(path.read_text()) for path in sorted(REPORTS.glob("*.json"))])
    if options.check:
        if not PAGE.exists() or PAGE.read_text() != page:
            print(f"{PAGE} is not what docs/support says: run {sys.argv[0]}", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page)
    return 0


def keep(report: dict[str, Any]) -> None:
    REPORTS.mkdir(exist_ok=True)
    report.pop("cases", None)
    kind = "device" if report["device"] else "simulation"
    path = REPORTS / f"{report['backend']}-{kind}.json"
    path.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")


def written(reports: Sequence[Report]) -> str:
    summary = ("backend", "on", "date", "versions", "passed", "refused", "wrong")
    parts = [HEAD, table(summary, [_summary(report) for report in reports])]
    found = {name: [r for r in reports if r["backend"] == name] for name in _names(reports)}
    standings = {name: [s for report in own for s in placed(report)] for name, own in found.items()}
    parts += ["## All backends\n", table(("op or facet", *standings), _overview(standings))]
    for name, own in found.items():
        parts.append(f"## {name}\n\n{'; '.join(_where(report) for report in own)}.\n")
        parts.append(
            table(("op or facet", "kernel", *DTYPES, "refused because"), _ops(standings[name]))
        )
        parts += [figures for report in own for figures in _figures(report)]
    return "\n".join(parts)


def _figures(report: Report) -> Iterator[str]:
    """How near to the device's limits the main ops came, if that was asked for."""
    if found := report.get("roofline"):
        yield "Of what the device copies or multiplies at most, by torch's own operations:\n"
        yield table(("op", "reached"), found)


def _names(reports: Sequence[Report]) -> list[str]:
    return sorted({report["backend"] for report in reports})


def placed(report: Report) -> Iterator[Standing]:
    """What a report says, and where that was seen: a model may run on a simulated device too."""
    for standing in report["ops"]:
        if standing["op"] == "roofline":
            continue  # a figure, see `_figures`
        simulated = standing["level"] == 2 or not report["device"]
        yield {**standing, "where": SIMULATED if simulated else DEVICE}


def _where(report: Report) -> str:
    if report["device"]:
        return f"On {report['device']['name']} ({report['device']['arch']})"
    if report["simulation"]:
        return f"Simulated: {report['simulation']['name']}, on {report['machine']['processor']}"
    return f"Without a device, on {report['machine']['processor']}"


def _summary(report: Report) -> tuple[str, ...]:
    outcomes, libraries = report["outcomes"], dict(report["machine"]["libraries"])
    libraries |= (report["device"] or report["simulation"] or {"libraries": {}})["libraries"]
    versions = [f"inarch {report['inarch']}"]
    if report["distribution"] != "inarch":
        versions.append(f"{report['distribution']} {report['version']}")
    versions += [f"{name} {libraries[name]}" for name in sorted(libraries) if name != "numpy"]
    wrong = outcomes.get("failed", 0) + outcomes.get("error", 0)
    counts = (outcomes.get("passed", 0), outcomes.get("refused", 0), wrong)
    where = _where(report).removeprefix("On ")
    return (report["backend"], where, report["date"], ", ".join(versions), *map(str, counts))


def _overview(standings: Mapping[str, Sequence[Standing]]) -> Iterator[tuple[str, ...]]:
    """A row for each op: the best that each backend has for it."""
    for op in _in_order({s["op"] for found in standings.values() for s in found}):
        own = [[s for s in found if s["op"] == op] for found in standings.values()]
        yield _name(op), *map(best, own)


def best(standings: Sequence[Standing]) -> str:
    """Of one op on one backend, in any dtype."""
    if any(s["bad"] for s in standings):
        return "**WRONG**"
    passed = [s for s in standings if s["passed"]]
    own = {s["where"] for s in passed if s["kernel"] != REFERENCE}
    if own:
        return DEVICE if DEVICE in own else SIMULATED
    return REFERENCE if passed else "refused" if standings else ""


def _in_order(ops: Iterable[str]) -> list[str]:
    last = list(NOT_OPS)
    return sorted(ops, key=lambda op: (last.index(op) if op in last else -1, op))


def _name(op: str) -> str:
    return NOT_OPS.get(op, f"`{op}`")


def _ops(standings: Sequence[Standing]) -> Iterator[tuple[str, ...]]:
    """A row for each kernel of an op; those of the reference only where it was what ran."""
    for op in _in_order({s["op"] for s in standings}):
        for kernel in sorted({s["kernel"] for s in standings if s["op"] == op}):
            found = [s for s in standings if (s["op"], s["kernel"]) == (op, kernel)]
            cells = (cell([s for s in found if s["dtype"] == dtype]) for dtype in DTYPES)
            yield _name(op), kernel, *cells, "; ".join(reasons(found))


def cell(standings: Sequence[Standing]) -> str:
    """What is to be said of a kernel in one dtype: the worst, else the best place."""
    if any(s["bad"] for s in standings):
        return "**WRONG**"
    passed = [s for s in standings if s["passed"]]
    if not passed:
        return "refused" if standings else ""
    places = {s["where"] for s in passed}
    word = DEVICE if DEVICE in places else SIMULATED
    refused = any(s["refused"] for s in passed if s["where"] == word)
    return f"{word}, in part" if refused else word


def reasons(standings: Sequence[Standing]) -> list[str]:
    """Each once: a refusal may have several."""
    return sorted({one for s in standings for said in s["reasons"] for one in said.split("; ")})


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
