"""The simulated NPU passes the kit that any backend is held to: `inarch conformance ascend` in part."""

from __future__ import annotations

from inarch.conformance.case import Outcome, Result
from inarch.conformance.package import Package
from inarch.conformance.run import Wanted, run
from inarch.conformance.suite import Suite
from inarch.hal.device import Device
from inarch.plugins import load_plugins
from inarch_ascend.backend import AscendBackend


def results(wanted: Wanted) -> list[Result]:
    suite = Suite(Package(AscendBackend()), load_plugins(entries=[]))
    return list(run(suite, wanted))


def assert_good(found: list[Result]) -> None:
    assert found
    assert [(result.case.id, result.note) for result in found if result.bad] == []


def test_numbers_are_right(npu: Device) -> None:
    """In bfloat16, which the fused attention takes."""
    found = results(Wanted((2,), cases=("2/*bfloat16*", "2/transfers/*")))
    assert_good(found)
    passed = {result.case.facet for result in found if result.outcome is Outcome.PASSED}
    assert passed >= {"attention", "pages", "steps", "rope", "rms_norm", "grouped_linear"}


def test_what_it_declares_is_well_formed(npu: Device) -> None:
    assert_good(results(Wanted((1,))))


def test_a_model_answers_as_on_the_reference(npu: Device) -> None:
    assert_good(results(Wanted((4,), cases=("4/engine/windows-batch-bfloat16",))))
