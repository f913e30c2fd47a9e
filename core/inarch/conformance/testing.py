"""The kit as pytest classes, for a backend's own tests:

    from inarch.conformance.testing import Conformance

    class TestAcme(Conformance):
        backend = "acme"  # as installed; or an object, as AcmeBackend()

A facet is a test, and a model is one. What the backend refuses throughout is skipped with its reasons.
AttentionConformance and the like hold a part alone, while it is being written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from inarch.conformance import facets
from inarch.conformance.case import Outcome, Result
from inarch.conformance.models import MODELS
from inarch.conformance.package import Package
from inarch.conformance.run import Wanted, run
from inarch.conformance.suite import Suite, find
from inarch.hal.backend import Backend
from inarch.hal.ops import OPS
from inarch.plugins import load_plugins

OF_OPS = tuple(sorted(OPS))
OF_FACETS = tuple(module.__name__.rpartition(".")[2] for module in facets.FACETS)


class NumbersConformance:
    """Levels 2 and 3, of `facets` alone: names of ops and facets, all by default.

    index: of the device. depth: how many of each generated case. only: patterns of ids, as
    ("*float32*",), to shorten it.
    """

    backend: ClassVar[str | Backend]
    index: ClassVar[int] = 0
    depth: ClassVar[int] = 1
    only: ClassVar[Sequence[str]] = ()
    facets: ClassVar[Sequence[str]] = (*OF_OPS, *OF_FACETS)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        for name, values in (("facet", self.facets), ("model", tuple(MODELS))):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values)

    @pytest.fixture(scope="class")
    @classmethod
    def suite(cls) -> Suite:
        plugins, backend = load_plugins(), cls.backend
        package = find(plugins, backend) if isinstance(backend, str) else Package(backend)
        return Suite(package, plugins, cls.index, cls.depth)

    def test_numbers(self, suite: Suite, facet: str) -> None:
        hold(suite, Wanted((2, 3), (facet,), self.only))


class Conformance(NumbersConformance):
    """Levels 0 to 4."""

    def test_package(self, suite: Suite) -> None:
        hold(suite, Wanted((0,)))

    def test_schema(self, suite: Suite) -> None:
        hold(suite, Wanted((1,)))

    def test_models(self, suite: Suite, model: str) -> None:
        hold(suite, Wanted((4,), cases=(f"4/engine/{model}-*",)))


class AttentionConformance(NumbersConformance):
    facets = ("attention", "latent_attention", "pages", "steps")


class LinearConformance(NumbersConformance):
    facets = ("linear", "quantized_linear", "grouped_linear", "experts")


class SamplingConformance(NumbersConformance):
    facets = (
        "greedy",
        "sample",
        "penalize",
        "count_tokens",
        "add_bias",
        "apply_token_mask",
        "logprobs",
    )


def hold(suite: Suite, wanted: Wanted) -> None:
    """Judge the cases: fails with what is wrong and how to see it again, skips if all are refused."""
    results = list(run(suite, wanted))
    bad = [result for result in results if result.bad]
    if bad:
        pytest.fail("\n".join(_told(suite, result) for result in bad), pytrace=False)
    if all(result.outcome is Outcome.REFUSED for result in results):
        reasons = sorted({result.note for result in results})
        pytest.skip("; ".join(reasons) or "there is no such case")


def _told(suite: Suite, result: Result) -> str:
    again = f"inarch conformance {suite.package.backend.name} --case {result.case.id}"
    told = f"{result.outcome.value}: {result.case.id}\n    {result.note}\n    again: {again}"
    return f"{told}\n{result.traceback}" if result.traceback else told
