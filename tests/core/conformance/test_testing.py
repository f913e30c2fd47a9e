"""The kit as pytest classes: what a backend's author puts into his own tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from inarch_fake.backend import FakeBackend

from inarch.conformance.testing import (
    AttentionConformance,
    Conformance,
    NumbersConformance,
    SamplingConformance,
)

pytest_plugins = ["pytester"]


class TestFake(SamplingConformance):
    backend = FakeBackend()


class TestFakeAttention(AttentionConformance):
    backend = FakeBackend()
    facets = ("latent_attention",)
    only = ("*/decodes-float32",)


WRONG = """
    from tests.core.conformance.wrong_linear import LINEAR
    from inarch.conformance.testing import NumbersConformance

    class TestMutant(NumbersConformance):
        backend = LINEAR["no-bias"]
        facets = ("linear", "sparse_mixer")
        only = ("*-bias-float32", "no such case")
"""


def test_a_wrong_backend_fails_with_what_to_run_again(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    pytester.makepyfile(WRONG)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rs")
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*the output is off by *",
            "*again: inarch conformance mutant --case 3/linear/wrong/1x896x896-bias-float32",
        ]
    )


def test_the_classes_cover_every_level_and_facet() -> None:
    assert issubclass(Conformance, NumbersConformance)
    assert {"attention", "pages", "rms_norm", "sample", "experts"} <= set(Conformance.facets)
    assert set(AttentionConformance.facets) <= set(Conformance.facets)
