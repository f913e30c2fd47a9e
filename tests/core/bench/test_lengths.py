"""The language of length distributions."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inarch.bench.lengths import (
    LONGEST,
    Lengths,
    LogNormal,
    SharedPrefix,
    Uniform,
    parse_lengths,
    parse_shared_prefix,
)
from inarch.errors import ConfigError

limits = st.tuples(st.integers(1, LONGEST), st.integers(1, LONGEST)).map(sorted)
uniform = limits.map(lambda pair: Uniform(*pair))
log_normal = st.builds(
    lambda mean, sigma, pair: LogNormal(mean, sigma, *pair),
    st.floats(1e-3, LONGEST),
    st.floats(0, 5),
    limits,
)


@given(uniform | log_normal)
def test_a_distribution_reads_back_as_it_prints(lengths: Lengths) -> None:
    assert parse_lengths(str(lengths)) == lengths


@given(uniform | log_normal, st.integers())
def test_samples_stay_within_the_limits(lengths: Lengths, seed: int) -> None:
    rng = random.Random(seed)
    assert all(lengths.low <= lengths.sample(rng) <= lengths.high for _ in range(20))


@given(st.text() | st.from_regex(r"(uniform|lognormal):[-0-9.,einfa]*"))
def test_any_other_text_is_refused_in_one_line_that_shows_the_forms(text: str) -> None:
    try:
        parse_lengths(text)
    except ConfigError as error:
        message = str(error)
    else:
        assume(False)
    assert message.startswith(f"bad length {text!r}: ")
    assert "uniform:64-256" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("128", Uniform(128, 128)),
        ("uniform:64-256", Uniform(64, 256)),
        ("lognormal:220,1.0,4-2048", LogNormal(220, 1.0, 4, 2048)),
        ("lognormal:220,1", LogNormal(220, 1.0, 1, 2200)),
    ],
)
def test_documented_forms(text: str, expected: Lengths) -> None:
    assert parse_lengths(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0", "-5", "1e3", "uniform:9-3", "uniform:5", "lognormal:nan,1", "lognormal:9,inf",
     "lognormal:220", "lognormal:220,1,4-8,9", "normal:3,4", "99999999999"],
)  # fmt: skip
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="bad length"):
        parse_lengths(text)


def test_the_mean_of_a_log_normal_is_the_mean_of_its_lengths() -> None:
    rng, lengths = random.Random(0), LogNormal(220, 1.0, 1, LONGEST)
    mean = statistics.fmean(lengths.sample(rng) for _ in range(50_000))
    assert mean == pytest.approx(220, rel=0.03)


def test_a_uniform_distribution_reaches_both_ends() -> None:
    rng = random.Random(0)
    assert {Uniform(3, 6).sample(rng) for _ in range(200)} == {3, 4, 5, 6}


def test_a_shared_prefix_is_groups_times_tokens() -> None:
    assert parse_shared_prefix("16x2048") == SharedPrefix(groups=16, length=2048)
    assert str(parse_shared_prefix("16x2048")) == "16x2048"


@pytest.mark.parametrize("text", ["", "16", "0x5", "5x0", "-1x5", "axb", "1x2x3"])
def test_a_malformed_shared_prefix_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 16x2048"):
        parse_shared_prefix(text)
