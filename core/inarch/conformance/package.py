"""Level 0: the package imports in milliseconds, looks without touching, and says why not."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inarch.conformance.case import Case, Failed, Refused, require
from inarch.conformance.fresh import MARK
from inarch.discovery import PluginRecord, PluginState
from inarch.errors import BackendError
from inarch.hal.backend import Backend
from inarch.plugins import BACKEND_NAME

IMPORT_SECONDS, PROBE_SECONDS = 0.3, 5.0
TRIES = 3  # of a time limit: a machine may be busy
PROCESS_SECONDS = 60
PUBLIC = ("inarch.hal", "inarch.hookspecs", "inarch.errors")  # of the core, to backends
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+")
NONSENSE = "\x01,,-7 nonsense"


@dataclass(frozen=True)
class Package:
    """A backend as it is installed. record: its plugin; None if it came as an object alone."""

    backend: Backend
    record: PluginRecord | None = None

    @property
    def place(self) -> str:
        """Where a fresh process finds it."""
        if self.record is not None:
            return self.record.entry_point
        kind = type(self.backend)
        return f"{kind.__module__}:{kind.__qualname__}"

    @property
    def top(self) -> str:
        """The package that the place is in."""
        return self.place.partition(":")[0].partition(".")[0]

    def sources(self) -> Iterator[Path]:
        """Its Python files; none for what is part of the core."""
        found = None if self.top == "inarch" else importlib.util.find_spec(self.top)
        for folder in (found and found.submodule_search_locations) or ():
            yield from sorted(Path(folder).rglob("*.py"))


def cases(package: Package) -> Iterator[Case]:
    checks: dict[str, Callable[[Package], str]] = {
        "registered": _registered,
        "import-seconds": _import_seconds,
        "import-modules": _import_modules,
        "public-imports": _public_imports,
        "probe": functools.partial(_probes, environment=dict),
        "probe-bare-environment": functools.partial(_probes, environment=_bare),
        "probe-odd-environment": functools.partial(_probes, environment=_odd),
        "probe-modules": _probe_modules,
        "environment": _environment,
        "missing-device": _missing_device,
    }
    for name, check in checks.items():
        yield Case(0, "package", name, functools.partial(check, package))


def fresh(package: Package, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a process of its own reports: see fresh.py."""
    variables = dict(os.environ if environment is None else environment)
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [
        sys.executable,
        "-m",
        "inarch.conformance.fresh",
        package.place,
        package.backend.name,
    ]
    with tempfile.TemporaryDirectory() as folder:
        try:
            ended = subprocess.run(
                command,
                env=variables,
                cwd=folder,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=PROCESS_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"importing and probing took more than {PROCESS_SECONDS} s") from None
    lines = [line for line in ended.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        last = (ended.stderr.strip() or "nothing on stderr").splitlines()[-1]
        raise Failed(f"the process ended with status {ended.returncode}: {last}")
    report: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
    if "import_error" in report:
        raise Failed(f"importing {package.place} raised {report['import_error']}")
    return report


def _registered(package: Package) -> str:
    name = package.backend.name
    require(BACKEND_NAME.fullmatch(str(name)), f"its name {name!r} is not {BACKEND_NAME.pattern}")
    record = package.record
    if record is None:
        return "given as an object: no plugin was looked at"
    require(record.state is PluginState.READY, f"its plugin is {record.why}")
    assert record.api is not None
    return f"{record.distribution} {record.version}, plugin API {'.'.join(map(str, record.api))}"


def _import_seconds(package: Package) -> str:
    seconds = _least(lambda: fresh(package)["import_cpu"], IMPORT_SECONDS)
    require(
        seconds <= IMPORT_SECONDS,
        f"importing {package.place} takes {seconds:.2f} s of processor time, the limit is "
        f"{IMPORT_SECONDS}: import vendors' libraries in open()",
    )
    return f"{seconds * 1000:.0f} ms"


def _least(measure: Callable[[], float], limit: float) -> float:
    seconds = measure()
    for _ in range(TRIES - 1):
        if seconds <= limit:
            break
        seconds = min(seconds, measure())
    return seconds


def _import_modules(package: Package) -> str:
    _check_modules(package, fresh(package)["imported"], "importing it")
    return ""


def _probe_modules(package: Package) -> str:
    report = fresh(package)
    require("probe_error" not in report, f"probe() raised {report.get('probe_error')}")
    _check_modules(package, report["probed"], "probing")
    return ""


def _check_modules(package: Package, loaded: list[str], what: str) -> None:
    foreign = [name for name in loaded if name != package.top]
    require(
        not foreign,
        f"{what} loads {', '.join(foreign)}: before open() nothing but Python's own library, the "
        "hardware contract and its own modules may be loaded",
    )


def _public_imports(package: Package) -> str:
    files = list(package.sources())
    if not files:
        raise Refused("it is part of the core, or no package")
    for file in files:
        for node in ast.walk(ast.parse(file.read_bytes())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules.append(node.module or "")
            for module in modules:
                inside = module == "inarch" or module.startswith("inarch.")
                if inside and not module.startswith(PUBLIC):
                    raise Failed(
                        f"{file.name} imports {module}: of the core, a backend may import "
                        f"{', '.join(PUBLIC)}"
                    )
    return f"{len(files)} files"


def _probes(package: Package, environment: Callable[..., dict[str, str]]) -> str:
    variables = None if environment is dict else environment(package)

    def measure() -> float:
        report.update(fresh(package, variables))
        return float(report["probe_wall"])

    report: dict[str, Any] = {}
    seconds = _least(measure, PROBE_SECONDS)
    require("probe_error" not in report, f"probe() raised {report.get('probe_error')}")
    require(seconds <= PROBE_SECONDS, f"probe() took {seconds:.1f} s, the limit is {PROBE_SECONDS}")
    probe = report["probe"]
    require("wrong" not in probe, f"probe() {probe.get('wrong')}")
    reasons = [str(reason).strip() for reason in probe["reasons"]]
    require(probe["score"] > 0 or any(reasons), "it finds nothing to run on and gives no reason")
    found = ", ".join(probe["devices"]) if probe["score"] > 0 else "; ".join(reasons)
    return f"score {probe['score']}: {found}"


def _bare(package: Package) -> dict[str, str]:
    """Next to nothing set, and no home."""
    kept = ("PYTHON", "LD_", "DYLD_", "SYSTEMROOT")
    found = {name: value for name, value in os.environ.items() if name.startswith(kept)}
    return found | {"HOME": "/nonexistent", "PATH": "", "LANG": "C"}


def _odd(package: Package) -> dict[str, str]:
    """Every variable that its own sources name is nonsense."""
    named: set[str] = set()
    for file in package.sources():
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= {node.value} if VARIABLE.fullmatch(node.value) else set()
    return dict(os.environ) | dict.fromkeys(named, NONSENSE)


def _environment(package: Package) -> str:
    variables = package.backend.environment()
    require(isinstance(variables, Mapping), f"environment() gave {variables!r}, no mapping")
    for name, value in variables.items():
        require(
            isinstance(name, str) and isinstance(value, str), f"{name!r}={value!r} is no variable"
        )
    return ", ".join(f"{name}={value}" for name, value in variables.items())


def _missing_device(package: Package) -> str:
    for index in (1 << 20, -1):
        try:
            device = package.backend.open(index)
        except BackendError as refusal:
            require(str(refusal).strip(), f"open({index}) refuses without a reason")
            continue
        except Exception as error:
            raise Failed(
                f"open({index}) raised {type(error).__name__} ({error}), not BackendError"
            ) from error
        device.close()
        raise Failed(f"open({index}) opened a device that cannot be there")
    return ""
