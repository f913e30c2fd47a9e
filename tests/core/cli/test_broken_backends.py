"""Whatever an installed backend does wrong, it is said, and every other backend goes on working."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import inarch.selection
from inarch.plugins import load_plugins

from .conftest import Run

CHIP = """
import sys
from inarch.hal.backend import Backend, Probe
from inarch.hal.op import Kernel
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.support import no, yes

class Device(ReferenceDevice):
    def kernels(self):
        {kernels}

class Chip(Backend):
    name = "chip"

    def probe(self):
        {probe}

    def open(self, index):
        {open}

    def environment(self):
        {environment}

@hookimpl
def inarch_backends():
    return [Chip()]
"""
SOUND = {
    "kernels": "return []",
    "probe": "return Probe(100)",
    "open": "return Device()",
    "environment": "return {}",
}
KERNEL = "return [Kernel({op!r}, 'chip', {implementation!r}, {supports})]"
REFERENCE_NORM = "inarch.hal.ops.norm:rms_norm"


def kernel(
    op: str = "rms_norm", implementation: str = REFERENCE_NORM, supports: str = "lambda f: yes()"
) -> str:
    return KERNEL.format(op=op, implementation=implementation, supports=supports)


# What is wrong, what then stands in `inarch plugins`, and what `--backend chip` is told.
IMPORTS = {
    "import": ("raise OSError('no chip')", "import failed", "import failed: OSError: no chip"),
    "hook": (
        "@hookimpl\ndef inarch_backends(): raise OSError('no chip')",
        "hook failed",
        "inarch_backends: OSError: no chip",
    ),
}
PROBES = {
    "raises": ("raise OSError('no chip')", "probe failed: OSError: no chip"),
    "exits": ("sys.exit(3)", "probe failed: SystemExit: 3"),
    "hangs": ("sys.never.wait()", "probe failed: probe() has not answered in"),
    "odd": ("return 100", "probe failed: probe() gave 100 instead of a Probe"),
    "texts": ("return Probe(1, devices=(7,))", "devices=(7,)"),
}
OPENINGS = {
    "open": ({"open": "raise OSError('no chip')"}, "cannot open device 0: OSError: no chip"),
    "exits": ({"open": "sys.exit(3)"}, "cannot open device 0: SystemExit: 3"),
    "no device": ({"open": "return None"}, "open(0) gave None, which is no Device"),
    "environment": ({"environment": "return 1 / 0"}, "variables it needs: ZeroDivisionError"),
    "values": ({"environment": "return {'THREADS': 2}"}, "THREADS=2: both must be texts"),
    "kernels": ({"kernels": "raise OSError('no list')"}, "which kernels it has: OSError: no list"),
    "no list": ({"kernels": "return None"}, "kernels() gave None instead of a list"),
    "no kernel": ({"kernels": "return ['norm']"}, "gave 'norm', which is no Kernel"),
    "unknown op": ({"kernels": kernel(op="rmsnorm")}, "'rmsnorm', which is no op of this Inarch"),
    "twice": ({"kernels": f"{kernel()} * 2"}, "two kernels named 'chip' for op 'rms_norm'"),
    "predicate": (
        {"kernels": kernel(supports="lambda facts: facts['heads']")},
        "kernel 'chip' of op 'rms_norm': supports() raised KeyError: 'heads'",
    ),
    "answer": (
        {"kernels": kernel(supports="lambda facts: True")},
        "kernel 'chip' of op 'rms_norm': supports() gave True instead of yes() or no('why')",
    ),
    "gone": (
        {"kernels": kernel(implementation="no_such_chip:norm")},
        "'no_such_chip:norm' cannot be imported: ModuleNotFoundError",
    ),
}


@pytest.fixture(autouse=True)
def alone(packages, monkeypatch: pytest.MonkeyPatch) -> None:
    """No plugin of this environment but those of the tests and the core's own."""
    others = {r.name for r in load_plugins().records if r.distribution != "inarch"}
    monkeypatch.setenv("INARCH_DISABLE_PLUGINS", ",".join(others))


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> str:
    return str(model)


def words(text: str) -> str:
    return " ".join(text.split())


def assert_the_rest_works(run: Run, folder: str) -> None:
    """The commands that tell what is wrong, and another backend that serves."""
    listed = run("plugins")
    assert listed.code == 0
    assert "bundled_model" in listed.out
    told = run("doctor", "--backend", "reference")
    assert told.code in (0, 1)
    assert "Traceback" not in told.err
    options = ("--load-format", "dummy", "--backend", "reference", "--kv-tokens", "64")
    answered = run("generate", folder, "--prompt", "x", "--max-tokens", "1", *options)
    assert answered.code == 0, answered.err


def doctor(run: Run, folder: str) -> str:
    ended = run("doctor", folder, "--load-format", "dummy", "--backend", "chip")
    assert ended.code == 1
    return words(ended.out)


@pytest.mark.parametrize("what", IMPORTS)
def test_a_plugin_that_does_not_load(run: Run, packages, folder: str, what: str) -> None:
    source, state, why = IMPORTS[what]
    packages.add("chip", source)
    assert state in words(run("plugins").out)
    assert f"trouble: plugin chip of acme-chip 1.0: {state}" in doctor(run, folder)
    assert why in run("generate", "--prompt", "x", "--backend", "chip").err
    assert_the_rest_works(run, folder)


@pytest.mark.parametrize("what", PROBES)
def test_a_probe_that_does_anything_but_answer(
    run: Run, packages, folder: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(inarch.selection, "MOST_PROBE_SECONDS", 0.3)
    never = threading.Event()
    monkeypatch.setattr("sys.never", never, raising=False)
    body, why = PROBES[what]
    packages.add("chip", CHIP.format(**{**SOUND, "probe": body}))
    try:
        assert "backend chip probe failed: " in words(run("plugins").out)
        assert why in doctor(run, folder).replace("--backend chip cannot be used, ", "")
        assert why in run("generate", "--prompt", "x", "--backend", "chip").err
        assert_the_rest_works(run, folder)
    finally:
        never.set()


@pytest.mark.parametrize("what", OPENINGS)
def test_a_device_that_does_not_open_or_whose_kernels_are_wrong(
    run: Run, packages, folder: str, what: str
) -> None:
    wrong, why = OPENINGS[what]
    packages.add("chip", CHIP.format(**{**SOUND, **wrong}))
    assert "chip ready" in words(run("plugins").out)
    assert why in doctor(run, folder)
    options = ("--load-format", "dummy", "--backend", "chip", "--kv-tokens", "64")
    ended = run("generate", folder, "--prompt", "x", *options)
    assert ended.code == 1
    assert why in ended.err.splitlines()[-1]
    assert "a bug in inarch" not in ended.err
    assert_the_rest_works(run, folder)


def test_two_distributions_that_give_one_backend(run: Run, packages, folder: str) -> None:
    for maker in ("one", "two"):
        packages.add("chip", CHIP.format(**SOUND), distribution=maker)
    assert words(run("plugins").out).count("one:chip and two:chip share a name") == 2
    assert "share a name: disable one of them" in doctor(run, folder)
    assert_the_rest_works(run, folder)


def test_a_device_that_was_lost_while_it_was_closed_is_a_trouble(run: Run, packages) -> None:
    lost = "Device.close = lambda self: 1 / 0; return Device()"
    packages.add("chip", CHIP.format(**{**SOUND, "open": lost}))
    ended = run("doctor", "--backend", "chip")
    assert ended.code == 1
    assert "ZeroDivisionError" in words(ended.out)


def test_a_hung_probe_is_waited_for_once(
    packages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inarch.selection, "MOST_PROBE_SECONDS", 0.2)
    never, asked = threading.Event(), list[bool]()

    def hang() -> None:
        asked.append(True)
        never.wait()

    monkeypatch.setattr("sys.never", hang, raising=False)
    packages.add("chip", CHIP.format(**{**SOUND, "probe": "sys.never()"}))
    plugins = load_plugins()
    for _ in range(3):
        (status,) = inarch.selection.survey(plugins, only="chip")
        assert status.state is inarch.selection.BackendState.PROBE_FAILED
    assert len(asked) == 1
    never.set()
    print("still to be seen")  # a hung probe must not keep standard output
    assert "still to be seen" in capsys.readouterr().out
