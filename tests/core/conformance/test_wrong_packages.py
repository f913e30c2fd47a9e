"""Packages that are wrong before any device is opened, each in a process of its own: level 0."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inarch.conformance import package
from inarch.conformance.case import Outcome
from inarch.conformance.package import Package
from inarch.conformance.run import Wanted, run
from inarch.conformance.suite import Suite
from inarch.discovery import PluginRecord, PluginState
from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe
from inarch.hal.device import Device
from inarch.plugins import load_plugins

RIGHT = """
import os
from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe

class Acme(Backend):
    name = "acme"

    def probe(self):
        os.environ.get("ACME_CARDS", "")
        return Probe(0, reasons=("no card",))

    def open(self, index):
        raise BackendError("no card")

def inarch_backends():
    return [Acme()]
"""
WRONG = {
    "a vendor's library at module level": (
        "import os", "import os, numpy", "import-modules", "importing it loads numpy",
    ),
    "a vendor's library in the probe": (
        "os.environ.get(", "import numpy; os.environ.get(", "probe-modules", "probing loads numpy",
    ),
    "a slow module": (
        "import os", "import os, time\nwhile time.process_time() < 0.6: pass", "import-seconds",
        "of processor time",
    ),
    "a probe that raises": (
        "os.environ.get(", "raise OSError('driver'); os.environ.get(", "probe", "OSError: driver",
    ),
    "a probe that trips over a variable": (
        'os.environ.get("ACME_CARDS", "")', 'int(os.environ.get("ACME_CARDS", "0"))',
        "probe-odd-environment", "ValueError",
    ),
    "a probe that needs a home": (
        "os.environ.get(", 'open(os.environ["HOME"] + "/.").close if os.environ["HOME"][1:4] != '
        '"non" else 1 / 0; os.environ.get(', "probe-bare-environment", "ZeroDivisionError",
    ),
    "a probe that ends the process": (
        "os.environ.get(", "os._exit(3); os.environ.get(", "probe", "ended with status 3",
    ),
    "a probe that gives something else": (
        'return Probe(0, reasons=("no card",))', "return False", "probe", "instead of a Probe",
    ),
    "an import of what is the core's own": (
        "import os", "import os\nimport inarch.config", "public-imports", "imports inarch.config",
    ),
}  # fmt: skip


class Acme(Backend):
    name = "acme"

    def probe(self) -> Probe:
        return Probe(0, reasons=("no card",))

    def open(self, index: int) -> Device:
        raise BackendError("no card")


RECORD = PluginRecord("acme", "inarch-acme", "1.0", "inarch_acme.plugin", api=(1, 0))


def written(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch, name: str) -> PluginRecord:
    """A package of a name of its own, since what was found once is remembered."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    (folder / name / "plugin.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    return replace(RECORD, entry_point=f"{name}.plugin")


def results(package: Package, case: str = "*") -> dict[str, tuple[Outcome, str]]:
    suite = Suite(package, load_plugins(entries=[]))
    wanted = Wanted((0,), cases=(f"0/package/{case}",))
    return {r.case.name: (r.outcome, r.note) for r in run(suite, wanted)}


def test_a_package_without_hardware_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = results(Package(Acme(), written(tmp_path, RIGHT, monkeypatch, "acme_right")))
    assert {outcome for outcome, _ in found.values()} == {Outcome.PASSED}
    assert found["probe"][1] == "score 0: no card"


@pytest.mark.parametrize("what", WRONG)
def test_it_is_caught(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, case, told = WRONG[what]
    assert old in RIGHT
    name = "acme_" + "_".join(what.replace("'", "").split())
    record = written(tmp_path, RIGHT.replace(old, new), monkeypatch, name)
    outcome, note = results(Package(Acme(), record), case)[case]
    assert outcome is Outcome.FAILED
    assert told in note


def test_a_slow_probe_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "PROBE_SECONDS", 0.2)
    slow = RIGHT.replace("os.environ.get(", "__import__('time').sleep(0.3); os.environ.get(")
    record = written(tmp_path, slow, monkeypatch, "acme_slow_probe")
    outcome, note = results(Package(Acme(), record), "probe")["probe"]
    assert outcome is Outcome.FAILED
    assert "the limit is 0.2" in note


def test_a_plugin_that_did_not_load_is_no_pass() -> None:
    record = replace(RECORD, state=PluginState.API_MISMATCH, reason="written for plugin API 2.0")
    outcome, note = results(Package(Acme(), record), "registered")["registered"]
    assert outcome is Outcome.FAILED
    assert "written for plugin API 2.0" in note


class OpensAnything(Acme):
    def open(self, index: int) -> Device:
        from inarch.hal.reference.device import ReferenceDevice

        return ReferenceDevice()


class Crashes(Acme):
    def open(self, index: int) -> Device:
        raise IndexError(index)


@pytest.mark.parametrize("backend", [OpensAnything(), Crashes()])
def test_a_device_that_is_not_there_is_refused(backend: Backend) -> None:
    outcome, _ = results(Package(backend), "missing-device")["missing-device"]
    assert outcome is Outcome.FAILED
