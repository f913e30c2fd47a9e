"""`inarch conformance` as an author sees it, and the page that is written from its reports."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from inarch.cli.main import main

ROOT = Path(__file__).parents[3]
PLUGIN = """
import os

from inarch.hal.backend import Backend, Probe
from inarch.hookspecs import hookimpl

INARCH_API = (1, 0)

class Wrong(Backend):
    name = "wrong"

    def probe(self):
        return Probe(1)

    def open(self, index):
        from inarch.hal.op import Kernel
        from inarch.hal.reference.device import ReferenceDevice

        device = ReferenceDevice()
        device.kernels = lambda: [
            Kernel("greedy", "least", lambda logits: logits.argmin(-1)),
            Kernel("relu", "fatal", lambda x: os._exit(7)),
        ]
        return device

@hookimpl
def inarch_backends():
    return [Wrong()]
"""


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["conformance", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that is installed, picks the least likely token, and dies over relu."""
    (tmp_path / "inarch_wrong_plugin.py").write_text(PLUGIN)
    info = tmp_path / "inarch_wrong-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: inarch-wrong\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[inarch]\nwrong = inarch_wrong_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))


def test_a_report_says_what_was_tested_on_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    code = run("reference", "--level", "3", "--facet", "greedy", "--report", str(path))
    assert code == 0
    assert "2 passed, 0 refused, 0 failed, 0 error" in capsys.readouterr().out
    report = json.loads(path.read_text())
    assert (report["backend"], report["outcomes"]) == ("reference", {"passed": 2})
    assert report["device"]["arch"].startswith(("x86_64", "aarch64", "arm64"))
    (op,) = report["ops"]
    assert (op["op"], op["kernel"], op["dtype"], op["level"]) == (
        "greedy",
        "reference",
        "float32",
        3,
    )
    assert [case["id"] for case in report["cases"]] == [
        "3/greedy/reference/rows-float32",
        "3/greedy/reference/ties-float32",
    ]


@pytest.mark.usefixtures("wrong")
def test_a_wrong_answer_ends_with_status_1_and_how_to_see_it_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = "3/greedy/least/rows-float32"
    assert run("wrong", "--level", "3", "--facet", "greedy") == 1
    out = capsys.readouterr().out
    assert f"again: inarch conformance wrong --case {case}" in out
    assert run("wrong", "--case", case) == 1
    again = capsys.readouterr().out
    assert "0 passed, 0 refused, 1 failed, 0 error" in again
    assert next(line for line in again.splitlines() if "is wrong at" in line) in out


@pytest.mark.usefixtures("wrong")
def test_a_kernel_that_ends_a_job_is_told_of_and_the_other_cases_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    wanted = ("--case", "3/greedy/least/*", "--case", "3/relu/fatal/*-float32")
    assert run("wrong", *wanted, "--jobs", "2", "--report", str(path)) == 1
    assert "its process ended with status 7" in capsys.readouterr().out
    cases = {case["id"]: case for case in json.loads(path.read_text())["cases"]}
    assert cases["3/greedy/least/rows-float32"]["outcome"] == "failed"
    assert "is wrong at" in cases["3/greedy/least/rows-float32"]["note"]
    assert {c["outcome"] for name, c in cases.items() if "/relu/" in name} == {"error"}


def test_no_case_at_all_is_no_pass() -> None:
    assert run("reference", "--case", "3/greedy/none") == 1


def test_an_unknown_backend_is_told_with_those_that_are_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("no_such") == 1
    assert "there is no backend 'no_such'; there are: " in capsys.readouterr().err


def page() -> Any:
    """ci/make_support_doc.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("page", ROOT / "ci" / "make_support_doc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(device: str = "", **standings: dict[str, Any]) -> dict[str, Any]:
    """Of one op, as `inarch conformance --report` writes it; standings by kernel."""
    known = {"op": "rope", "dtype": "float32", "level": 3 if device else 2, "reasons": []}
    none = {"passed": 0, "refused": 0, "bad": 0}
    where = {"name": device, "arch": "a1", "libraries": {}}
    return {
        "backend": "acme",
        "ops": [{"kernel": k, **known, **none, **said} for k, said in standings.items()],
        "device": where if device else None,
        "simulation": None if device else {**where, "name": "Acme 1, played"},
        "machine": {"processor": "a CPU", "libraries": {}},
        "outcomes": {"passed": 1},
        **{"inarch": "1", "distribution": "inarch-acme", "version": "2", "date": "today"},
    }


def test_a_device_counts_for_more_than_what_is_simulated_and_a_fault_for_most() -> None:
    ours = page()

    def told(*reports: dict[str, Any]) -> tuple[str, str]:
        standings = [standing for each in reports for standing in ours.placed(each)]
        return ours.cell(standings), ours.best(standings)

    played, seen = report(fast={"passed": 9}), report("Acme 1", fast={"passed": 1})
    assert told() == ("", "")
    assert told(played) == ("*simulated*", "*simulated*")
    assert told(played, seen) == ("device", "device")
    assert told(report("Acme 1", fast={"refused": 2})) == ("refused", "refused")
    assert told(report("Acme 1", fast={"passed": 1, "refused": 2})) == ("device, in part", "device")
    assert told(report("Acme 1", reference={"passed": 1})) == ("device", "reference")
    assert told(played, report("Acme 1", fast={"passed": 1, "bad": 1}))[0] == "**WRONG**"
    model = report(**{"": {"passed": 1, "op": "engine", "level": 4}})
    assert told(model) == ("*simulated*", "*simulated*")


def test_the_page_has_one_part_for_a_backend_whatever_its_reports_are_of() -> None:
    why = "no windows; only float16"
    reports = [report("Acme 1", fast={"passed": 1, "reasons": [why]}), report(slow={"passed": 1})]
    text = page().written(reports)
    assert text.count("\n## acme\n\nOn Acme 1 (a1); Simulated: Acme 1, played, on a CPU.\n") == 1
    assert "| `rope` | fast | device |  |  | no windows; only float16 |" in text
    assert "| `rope` | slow | *simulated* |  |  |  |" in text
    assert "| op or facet | acme |" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--report", "no/folder/report.json"), "there is no folder no/folder"),
        (("--depth", "0"), "0 is not in the range x>=1"),
    ],
)
def test_what_cannot_be_done_is_said_before_minutes_of_testing(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    assert run("reference", "--level", "0", "--case", "none", *options) == 2
    assert said in capsys.readouterr().err
