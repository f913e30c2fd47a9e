"""Write docs/support.md, which op runs where, from the reports of `inarch conformance`.

    python ci/make_support_doc.py [--add REPORT.json ...] [--check]

--add keeps a report in docs/support, without its single cases, in the place of an older one of that
backend. --check writes nothing: it fails if the page is not what its reports say.
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
NOT_OPS = ("pages", "steps", "engine")  # in the order of the table's end
NAMES = {
    "pages": "KV pages",
    "steps": "steps, captured where the backend captures",
    "engine": "whole models",
}
HEAD = """# What runs where

Written by `ci/make_support_doc.py` from the reports of [`inarch conformance`](conformance.md); a
backend without a report is not on this page. Ops are compared with float64, whole models with the
reference's answers:

- **device**: right in every case, on the device named in the report;
- *simulated*: right in every case, on what the backend simulates; never yet seen on the hardware;
- refused: the backend says no, with the reason, and another kernel or the reference serves;
- **WRONG**: it said yes and was wrong.

An op without a kernel of the backend's own runs on the plain reference, on the same device.
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
    rows = [_summary(report) for report in reports]
    parts = [
        HEAD,
        table(("backend", "on", "date", "versions", "passed", "refused", "wrong"), rows),
    ]
    for report in reports:
        parts.append(f"## {report['backend']}, {_where(report)}\n")
        parts.append(table(("op or facet", "kernel", *DTYPES, "refused because"), _ops(report)))
    return "\n".join(parts)


def _where(report: Report) -> str:
    if report["device"]:
        return f"on {report['device']['name']} ({report['device']['arch']})"
    return f"simulated on {report['machine']['processor']}"


def _summary(report: Report) -> tuple[str, ...]:
    outcomes, libraries = report["outcomes"], dict(report["machine"]["libraries"])
    libraries |= (report["device"] or report["simulation"] or {"libraries": {}})["libraries"]
    versions = [f"inarch {report['inarch']}"]
    if report["distribution"] != "inarch":
        versions.append(f"{report['distribution']} {report['version']}")
    versions += [f"{name} {libraries[name]}" for name in sorted(libraries) if name != "numpy"]
    wrong = outcomes.get("failed", 0) + outcomes.get("error", 0)
    counts = (outcomes.get("passed", 0), outcomes.get("refused", 0), wrong)
    where = _where(report).removeprefix("on ")
    return (report["backend"], where, report["date"], ", ".join(versions), *map(str, counts))


def _ops(report: Report) -> Iterator[tuple[str, ...]]:
    """A row for each kernel of an op; those of the reference only where it was what ran."""
    groups: dict[tuple[str, str], dict[str, list[Standing]]] = {}
    for standing in report["ops"]:
        by_dtype = groups.setdefault((standing["op"], standing["kernel"]), {})
        by_dtype.setdefault(standing["dtype"], []).append(standing)
    order = sorted(groups, key=lambda key: (key[0] in NOT_OPS, key))
    for op, kernel in order:
        found = groups[op, kernel]
        cells = [cell(found.get(dtype, [])) for dtype in DTYPES]
        reasons = sorted({r for part in found.values() for s in part for r in s["reasons"]})
        yield NAMES.get(op, f"`{op}`"), kernel, *cells, "; ".join(reasons)


def cell(standings: Sequence[Standing]) -> str:
    """What is to be said of a kernel in one dtype: the worst, else the highest level."""
    if any(s["bad"] for s in standings):
        return "**WRONG**"
    passed = [s for s in standings if s["passed"]]
    if not passed:
        return "refused" if standings else ""
    level = max(s["level"] for s in passed)
    word = "*simulated*" if level == 2 else "device"
    refused = sum(s["refused"] for s in passed if s["level"] == level)
    return f"{word}, in part" if refused else word


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
