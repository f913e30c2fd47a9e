"""Import a backend and probe it in a process of its own: `python -m inarch.conformance.fresh PLACE`.

Prints one line of JSON: what was loaded, how long it took, what the probe said. PLACE is an entry
point's value, or that of something to call for a Backend. Nothing heavy may be imported here.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

# What any plugin may import at once is loaded before the clock starts.
import inarch.errors
import inarch.hal.backend
import inarch.hal.op
import inarch.hal.support
import inarch.hookspecs

MARK = "inarch-conformance:"


def main(place: str, name: str) -> None:
    before = set(sys.modules)
    report: dict[str, Any] = {}
    backend = _timed(report, "import", lambda: found(place, name))
    report["imported"] = _new(before)
    if backend is not None:
        probe = _timed(report, "probe", backend.probe)
        report["probed"] = _new(before)
        report["probe"] = described(probe)
    print(f"\n{MARK}{json.dumps(report)}", flush=True)


def found(place: str, name: str) -> Any:
    """The backend called `name` of a plugin, or what the callable at `place` gives."""
    module, _, attribute = place.partition(":")
    thing: Any = importlib.import_module(module)
    for part in filter(None, attribute.split(".")):
        thing = getattr(thing, part)
    if not hasattr(thing, "inarch_backends"):
        return thing()
    return next(backend for backend in thing.inarch_backends() if backend.name == name)


def described(probe: Any) -> dict[str, Any]:
    if not isinstance(probe, inarch.hal.backend.Probe):
        return {"wrong": f"gave {probe!r} instead of a Probe"}
    return {"score": probe.score, "devices": probe.devices, "reasons": probe.reasons}


def _timed(report: dict[str, Any], what: str, call: Callable[[], Any]) -> Any:
    """Seconds of processor and of wall; what is raised goes into the report."""
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        return call()
    except BaseException as error:
        report[f"{what}_error"] = f"{type(error).__name__}: {error}"
        report["traceback"] = traceback.format_exc()
    finally:
        report[f"{what}_cpu"] = time.process_time() - cpu
        report[f"{what}_wall"] = time.perf_counter() - wall


def _new(before: set[str]) -> list[str]:
    """Top-level packages that came in meanwhile and are not Python's own."""
    names = {name.partition(".")[0] for name in set(sys.modules) - before}
    return sorted(names - sys.stdlib_module_names - {"inarch", "__main__", "__mp_main__"})


if __name__ == "__main__":
    main(*sys.argv[1:])
