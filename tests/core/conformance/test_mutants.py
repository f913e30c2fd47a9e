"""Every mutant is caught, by the level and the facet that should, and for the right reason."""

from __future__ import annotations

import pytest

from inarch.conformance.package import Package
from inarch.conformance.run import Wanted, run
from inarch.conformance.suite import Suite
from inarch.plugins import load_plugins

from .mutants import MUTANTS
from .wrong_attention import ATTENTION
from .wrong_linear import LINEAR

ALL = MUTANTS | ATTENTION | LINEAR


@pytest.mark.parametrize("name", ALL)
def test_a_mutant_is_caught(name: str) -> None:
    mutant = ALL[name]
    suite = Suite(Package(mutant), load_plugins(entries=[]))
    wanted = Wanted((mutant.level,), (mutant.facet,), mutant.cases)
    bad = [r for r in run(suite, wanted) if r.bad]
    assert any(mutant.told in result.note for result in bad), [r.note for r in bad]
