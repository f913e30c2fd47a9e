"""Collectives of backends that are right, wrong, or have none, between processes that really run."""

from __future__ import annotations

from pathlib import Path

import pytest

from inarch.conformance.case import Outcome, Result
from inarch.conformance.package import Package
from inarch.conformance.run import Wanted, run
from inarch.conformance.suite import Suite
from inarch.hal.backend import Backend
from inarch.hal.reference.backend import ReferenceBackend
from inarch.plugins import load_plugins

from .wrong_collectives import WRONG, Sockets


@pytest.fixture(autouse=True)
def found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank's process imports this folder's modules as pytest does."""
    monkeypatch.syspath_prepend(Path(__file__).parents[3])


def results(backend: Backend, *cases: str) -> list[Result]:
    suite = Suite(Package(backend), load_plugins(entries=[]))
    return list(run(suite, Wanted((3,), ("collectives",), cases)))


def test_the_references_own_pass_and_a_world_that_cannot_be_is_refused() -> None:
    found = results(
        Sockets(), "*-2", "*-2-*", "*-3-*", "*/meet-4", "*-1-float32", "*/broadcast-4-*"
    )
    assert [r.note for r in found if r.bad] == []
    refused = {r.case.name: r.note for r in found if r.outcome is Outcome.REFUSED}
    assert refused == {r.case.name: "4 ranks are too many" for r in found if "-4" in r.case.name}
    assert len(refused) > 1, "a refusal is remembered"


def test_a_device_without_any_is_refused_and_no_process_is_started() -> None:
    found = results(ReferenceBackend())
    assert {r.outcome for r in found} == {Outcome.REFUSED}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_is_caught(name: str) -> None:
    kind, case, told = WRONG[name]
    bad = [r.note for r in results(kind(), f"3/collectives/{case}") if r.bad]
    assert any(told in note for note in bad), bad
