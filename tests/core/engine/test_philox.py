from __future__ import annotations

import numpy as np

from inarch.engine.philox import philox, uniforms


def test_the_words_are_those_of_the_published_test_vectors() -> None:
    """kat_vectors of Random123: philox4x32 with 10 rounds."""
    zeros = philox(np.zeros(1, np.uint64), np.zeros(1, np.uint64))
    assert [f"{word:08x}" for word in zeros.ravel()] == [
        "6627e8d5",
        "e169c58d",
        "bc57ac4c",
        "9b00dbd8",
    ]


def test_a_number_depends_on_seed_and_position_alone() -> None:
    seeds = np.array([3, 2**63 + 5], dtype=np.uint64)
    whole = uniforms(seeds, 0, 64)
    assert np.array_equal(uniforms(seeds[1:], 32, 16), whole[1:, 32:48])
    assert not np.array_equal(whole[0], whole[1])


def test_the_numbers_are_uniform() -> None:
    drawn = uniforms(np.arange(1000, dtype=np.uint64), 0, 64)
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert abs(counts / drawn.size - 0.05).max() < 0.003
