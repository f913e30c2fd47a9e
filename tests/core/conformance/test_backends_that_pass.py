"""The reference and the fake accelerator pass the kit: some of every facet, on every level."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from inarch_fake.backend import FakeBackend

from inarch.conformance.case import Outcome, Result
from inarch.conformance.package import Package
from inarch.conformance.run import Wanted, run
from inarch.conformance.suite import Suite
from inarch.discovery import PluginRecord
from inarch.hal.backend import Backend
from inarch.hal.reference.backend import ReferenceBackend
from inarch.plugins import load_plugins

FAKE = Path(__file__).parents[2] / "fake_accelerator"
SOME = ("*-float32", "*transfers*")  # float32 has every kind of case


def results(backend: Backend, wanted: Wanted, record: PluginRecord | None = None) -> list[Result]:
    suite = Suite(Package(backend, record), load_plugins(entries=[]))
    return list(run(suite, wanted))


def assert_good(found: list[Result]) -> None:
    assert found
    assert [(r.case.id, r.note) for r in found if r.bad] == []


@pytest.mark.parametrize("backend", [ReferenceBackend, FakeBackend])
def test_numbers_are_right(backend: type[Backend]) -> None:
    found = results(backend(), Wanted((1, 3), cases=("1/*", *(f"3/{name}" for name in SOME))))
    assert_good(found)
    assert len({r.case.facet for r in found}) > 30, "every op and facet has cases"


def test_the_package_of_the_fake_accelerator_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FAKE))
    record = PluginRecord("fake", "inarch-fake", "1.0", "inarch_fake.plugin", api=(1, 0))
    found = results(FakeBackend(), Wanted((0,)), record)
    assert_good(found)
    assert {r.outcome for r in found} == {Outcome.PASSED}


def test_models_on_the_fake_accelerator_answer_as_on_the_reference() -> None:
    wanted = Wanted((4,), cases=("4/engine/dense-batch-float32",))
    assert_good(results(FakeBackend(), wanted))


def test_a_roofline_tells_what_part_of_the_devices_most_is_reached() -> None:
    (found,) = results(ReferenceBackend(), Wanted((5,), cases=("5/roofline/silu_mul-float32",)))
    assert found.outcome is Outcome.PASSED
    assert re.fullmatch(r"[\d.]+ GB/s, \d+ % of [\d.]+", found.note), found.note
