"""Sampling against the reference: the same tokens, but for draws within rounding of a bound."""

from __future__ import annotations

import bisect
import functools
import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inarch.hal.ops import OPS
from inarch_intel_cpu.attending import attending_kernels

VOCABULARIES = (1, 7, 100, 1024, 5003)


@functools.cache
def table(native):
    return {kernel.op: kernel.load() for kernel in attending_kernels(native)}


def logits_of(rows, size, seed=0, scale=4.0):
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * scale


def exact(logits, temperature, uniform, top_k, top_p, min_p):
    """The draws in float64 while every bound is moved down and up by 1e-6; one row."""
    probs = (logits.double() / temperature).softmax(0).tolist()
    order = sorted(range(len(probs)), key=lambda n: -probs[n])  # of equals the first comes first
    found = set()
    for moved in (-1e-6, 0.0, 1e-6):
        least = (min_p + moved if min_p else 0) * probs[order[0]]
        kept, before = [], 0.0
        for count, token in enumerate(order):
            cut = count >= top_k or (top_p < 1 and before >= top_p + moved) or probs[token] < least
            if kept and cut:
                break
            kept.append(token)
            before += probs[token]
        kept.sort()
        sums = list(itertools.accumulate(probs[token] for token in kept))
        # Between the two there may be tokens that weigh next to nothing, and in float32 nothing.
        first, last = (
            min(bisect.bisect_right(sums, (uniform + other) * sums[-1]), len(kept) - 1)
            for other in (-1e-6, 1e-6)
        )
        found |= {token for token in kept[first : last + 1] if probs[token] > 0}
    return found


def test_a_token_too_unlikely_for_float32_need_not_be_drawn(native):
    row = torch.tensor([[-80.0, -20.0, 20.0]])
    temperature, lowest = torch.tensor([0.5]), torch.zeros(1)
    found = table(native)["sample"](row, temperature, lowest)
    assert torch.equal(found, OPS["sample"](row, temperature, lowest))
    assert int(found) in exact(row[0], 0.5, 0.0, 3, 1.0, 0.0)


def test_equals_of_the_most_likely_stay_whatever_min_p_asks(native):
    row, one = torch.tensor([[1.0, 2.0, 0.0, 2.0]]), torch.ones(1)
    for uniform, token in ((0.25, 1), (0.75, 3)):
        found = table(native)["sample"](row, one, torch.tensor([uniform]), None, None, one)
        assert found.tolist() == [token]


def test_a_draw_at_the_very_end_gives_no_token_that_is_forbidden(native):
    logits = logits_of(40, 5003, scale=0.1)
    logits[:, 3000:] = -torch.inf
    found = table(native)["sample"](logits, torch.ones(40), torch.full((40,), 1 - 2**-24))
    assert int(found.max()) < 3000


@pytest.mark.parametrize("size", VOCABULARIES)
def test_a_row_of_nan_gives_a_token_of_the_vocabulary(native, size):
    logits, one = torch.full((2, size), torch.nan), torch.ones(2)
    for found in (
        table(native)["greedy"](logits),
        table(native)["sample"](logits, one, one / 2),
        table(native)["sample"](logits, one, one / 2, None, one / 2, None),
    ):
        assert ((found >= 0) & (found < size)).all()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_what_filters_keep_is_drawn_as_defined(native, data):
    size = data.draw(st.sampled_from(VOCABULARIES))
    logits = logits_of(
        3, size, data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.01, 1, 20]))
    )
    if data.draw(st.booleans()):
        logits = logits.round()  # ties
    if size > 1 and data.draw(st.booleans()):
        logits[:, ::2] = -torch.inf
    temperature = torch.tensor([data.draw(st.floats(0.1, 3)) for _ in range(3)])
    uniform = torch.tensor(
        [data.draw(st.floats(0, 0.9990000128746033, width=32)) for _ in range(3)]
    )
    top_k = torch.tensor([data.draw(st.integers(1, size + 3)) for _ in range(3)], dtype=torch.int32)
    top_p = torch.tensor(
        [data.draw(st.sampled_from([0.0001, 0.3, 0.9, 0.999, 1.0])) for _ in range(3)]
    )
    min_p = torch.tensor([data.draw(st.sampled_from([0.0, 0.01, 0.5, 1.0])) for _ in range(3)])
    which = [data.draw(st.booleans()) for _ in range(3)]
    off = (torch.full((3,), size), torch.ones(3), torch.zeros(3))
    filters = [f if on else None for f, on in zip((top_k, top_p, min_p), which, strict=True)]
    used = [f if on else o for f, on, o in zip((top_k, top_p, min_p), which, off, strict=True)]
    found = table(native)["sample"](logits, temperature, uniform, *filters)
    for r in range(3):
        allowed = exact(
            logits[r], float(temperature[r]), float(uniform[r]), int(used[0][r]), float(used[1][r]),
            float(used[2][r]),
        )  # fmt: skip
        assert int(found[r]) in allowed


@pytest.mark.parametrize("size", VOCABULARIES)
def test_the_most_likely_token_is_taken_the_first_of_equals(native, size):
    logits = logits_of(5, size).round()
    assert torch.equal(table(native)["greedy"](logits), logits.argmax(-1))
    cold = torch.zeros(5)
    assert torch.equal(table(native)["sample"](logits, cold, cold), logits.argmax(-1))


def test_draws_without_filters_follow_the_probabilities(native):
    logits = logits_of(1, 300, scale=1.0).expand(4000, 300)
    uniform = torch.linspace(0, 0.99999, 4000)
    found = table(native)["sample"](logits.contiguous(), torch.ones(4000), uniform)
    shares = torch.bincount(found, minlength=300) / 4000
    torch.testing.assert_close(shares, logits[0].softmax(-1), atol=6e-4, rtol=0)


@pytest.mark.parametrize("top", [0, 1, 5, 20])
@pytest.mark.parametrize("size", [20, 333, 5003])
def test_logprobs_are_those_of_a_softmax(native, top, size):
    logits, tokens = logits_of(4, size), torch.tensor([0, 3, size - 1, 7])
    chosen, values, ids = table(native)["logprobs"](logits, tokens, top)
    wanted = OPS["logprobs"](logits.double(), tokens, top)
    torch.testing.assert_close(chosen.double(), wanted[0], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(values.double(), wanted[1], atol=1e-5, rtol=1e-6)
    assert torch.equal(ids, wanted[2])


def test_more_logprobs_than_there_are_tokens_are_refused_and_not_read(native):
    with pytest.raises(ValueError, match="8 most likely tokens of a vocabulary of 7"):
        table(native)["logprobs"](logits_of(2, 7), torch.tensor([0, 6]), 8)


def test_penalties_masks_biases_and_counts_are_as_defined(native):
    size, rows = 77, torch.tensor([4, 0, 2])
    make = torch.Generator().manual_seed(3)
    prompt = torch.rand(6, size, generator=make) < 0.3
    counts = torch.randint(0, 3, (6, size), generator=make, dtype=torch.int32)
    penalties = (
        torch.tensor([1.0, 1.3, 2.0]),
        torch.tensor([0.0, 0.5, -1.0]),
        torch.tensor([0, 0.7, 1]),
    )
    bits = torch.randint(-(2**31), 2**31 - 1, (2, 3), generator=make, dtype=torch.int32)
    bits[0, 0] = -1
    places, tokens = torch.tensor([0, 0, 2]), torch.tensor([1, 1, 76])
    values = torch.tensor([1.0, 2.0, -torch.inf])
    for op, more in {
        "penalize": (rows, prompt, counts, *penalties),
        "apply_token_mask": (bits, torch.tensor([2, 0])),
        "add_bias": (places, tokens, values),
    }.items():
        logits = logits_of(3, size)
        found = table(native)[op](logits.clone(), *more)
        torch.testing.assert_close(found, OPS[op](logits.clone(), *more), atol=1e-6, rtol=1e-6)
    found = table(native)["count_tokens"](counts.clone(), places, tokens)
    assert torch.equal(found, OPS["count_tokens"](counts.clone(), places, tokens))


def test_nan_among_the_logits_is_as_if_it_were_impossible(native):
    logits = logits_of(4, 5003)
    nan = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    spoilt, without = logits.masked_fill(nan, torch.nan), logits.masked_fill(nan, -torch.inf)
    one = torch.ones(4)
    for top_k in (1, 40, 4000):
        asked = (one, one * 0.7, one.int() * top_k, one * 0.999)
        sample = table(native)["sample"]
        assert sample(spoilt, *asked).equal(sample(without, *asked))
    tokens, logprobs = without.argmax(-1), table(native)["logprobs"]
    for found, wanted in zip(
        logprobs(spoilt, tokens, 4000), logprobs(without, tokens, 4000), strict=True
    ):
        assert found.equal(wanted)
