"""Every mutant is caught, by the level and the facet that should, and for the right reason."""

from __future__ import annotations

import pytest

from inarch.conformance.package import Package
from inarch.conformance.run import Wanted, run
from inarch.conformance.suite import Suite
from inarch.plugins import load_plugins

from .mutants import MUTANTS
from .wrong_linear import LINEAR

ALL = MUTANTS | LINEAR


@pytest.mark.parametrize("name", ALL)
def test_a_mutant_is_caught(name: str) -> None:
    mutant = ALL[name]
    suite = Suite(Package(mutant), load_plugins(entries=[]))
    few = ("*dense-batch-float32",) if mutant.level == 4 else ()  # a model takes seconds
    bad = [r for r in run(suite, Wanted((mutant.level,), (mutant.facet,), few)) if r.bad]
    assert any(mutant.told in result.note for result in bad), [r.note for r in bad]
