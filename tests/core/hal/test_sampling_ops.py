"""The sampler against brute force: a list of tokens, cut and drawn from one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inarch.hal.ops.sampling import (
    add_bias,
    apply_token_mask,
    count_tokens,
    greedy,
    logprobs,
    penalize,
    sample,
)

OFF = 1 << 30  # a top_k that keeps everything


def draw(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = OFF,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> np.ndarray:
    """One token for every uniform number, all from the same logits [V]."""
    rows = len(uniform)
    return sample(
        logits.expand(rows, -1),
        torch.full((rows,), temperature),
        uniform,
        None if top_k == OFF else torch.full((rows,), top_k, dtype=torch.int32),
        None if top_p == 1 else torch.full((rows,), top_p),
        None if min_p == 0 else torch.full((rows,), min_p),
    ).numpy()


def kept_by_hand(
    logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float
) -> dict[int, float]:
    """Token -> probability after all cuts."""
    weights = np.exp((logits - logits.max()) / temperature)
    probabilities = weights / weights.sum()
    ranked = sorted(range(len(logits)), key=lambda token: (-probabilities[token], token))
    kept: dict[int, float] = {}
    before = 0.0
    for rank, token in enumerate(ranked):
        p = float(probabilities[token])
        if rank == 0 or (
            rank < top_k and before < top_p and p >= min_p * float(probabilities[ranked[0]])
        ):
            kept[token] = p
        before += p
    total = sum(kept.values())
    return {token: p / total for token, p in kept.items()}


CUTS = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"top_k": 3},
    {"top_k": 1},
    {"top_p": 0.6},
    {"top_p": 1e-6},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"top_k": 5, "top_p": 0.8, "min_p": 0.05, "temperature": 1.3},
]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_draws_follow_the_cut_and_renormalised_distribution(cuts: dict[str, float]) -> None:
    """Evenly spaced uniforms: each token's share of them is its probability, to one draw."""
    logits = torch.from_numpy(np.random.default_rng(3).standard_normal(12, np.float32) * 2)
    count = 20_000
    drawn = draw(logits, (torch.arange(count) + 0.5) / count, **cuts)  # type: ignore[arg-type]
    everything = {"temperature": 1.0, "top_k": OFF, "top_p": 1.0, "min_p": 0.0} | cuts
    expected = kept_by_hand(logits.double().numpy(), **everything)  # type: ignore[arg-type]
    assert set(drawn.tolist()) <= set(expected)
    for token, probability in expected.items():
        assert (drawn == token).mean() == pytest.approx(probability, abs=3 / count)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.integers(1, 40),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.integers(1, 45),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 1.0),
)
def test_no_uniform_ever_draws_a_token_that_was_cut(
    seed: int, vocabulary: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.standard_normal(vocabulary, np.float32) * 3)
    edges = torch.tensor([0.0, 0.5, 1 - 2**-24])
    uniform = torch.cat([edges, torch.from_numpy(rng.random(60, np.float32))])
    cuts = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    drawn = set(draw(logits, uniform, **cuts).tolist())  # type: ignore[arg-type]
    # What lies within rounding of a threshold may fall on either side of it.
    wider = {**cuts, "top_p": min(1.0, top_p + 1e-5), "min_p": max(0.0, min_p - 1e-5)}
    assert drawn <= set(kept_by_hand(logits.double().numpy(), **wider))  # type: ignore[arg-type]


def test_a_filter_that_is_off_for_a_row_changes_nothing_for_it() -> None:
    """The same draw, whether or not a neighbour in the batch brings filters along."""
    logits = torch.from_numpy(np.random.default_rng(2).standard_normal((1, 5000), np.float32))
    uniform = (torch.arange(2000) + 0.5) / 2000
    one = torch.ones(2000)
    off = (torch.full((2000,), OFF, dtype=torch.int32), one, torch.zeros(2000))
    rows = logits.expand(2000, -1)
    assert torch.equal(sample(rows, one, uniform, *off), sample(rows, one, uniform))


def test_temperature_zero_is_greedy_whatever_the_uniform() -> None:
    logits = torch.tensor([0.1, 3.0, 2.9, 3.0])
    assert draw(logits, torch.rand(50), temperature=0.0).tolist() == [1] * 50
    assert greedy(logits[None]).tolist() == [1]


def test_top_k_keeps_the_lower_ids_of_a_tie() -> None:
    drawn = draw(torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.rand(200), top_k=2)
    assert set(drawn.tolist()) == {1, 2}
    assert draw(torch.zeros(20_000), torch.rand(200), top_k=100).max() < 100


def test_a_forbidden_token_is_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0])
    uniform = torch.cat([torch.linspace(0, 1 - 2**-24, 500)])
    assert set(draw(logits, uniform).tolist()) == {1, 3}


def test_rows_with_different_parameters_do_not_influence_each_other() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.standard_normal((6, 30), np.float32))
    temperature = torch.tensor([0.0, 1.0, 0.7, 1.0, 2.0, 0.0])
    top_k = torch.tensor([5, 3, OFF, OFF, 7, OFF], dtype=torch.int32)
    top_p = torch.tensor([1.0, 0.5, 1.0, 0.9, 1.0, 0.1])
    min_p = torch.tensor([0.0, 0.0, 0.1, 0.0, 0.0, 0.0])
    uniform = torch.from_numpy(rng.random(6, np.float32))
    parameters = (logits, temperature, uniform, top_k, top_p, min_p)
    together = sample(*parameters)
    alone = [sample(*(p[i : i + 1] for p in parameters)).item() for i in range(6)]
    assert together.tolist() == alone


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 4), vocabulary=st.integers(1, 12))
def test_penalties_equal_their_definition(seed: int, rows: int, vocabulary: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, vocabulary)).astype(np.float32)
    table = rng.permutation(5)[:rows]  # where the past of each sequence is kept
    prompt = rng.random((5, vocabulary)) < 0.3
    counts = rng.integers(0, 3, (5, vocabulary)).astype(np.int32)
    repetition = rng.uniform(0.5, 2, rows).astype(np.float32)
    frequency, presence = rng.uniform(-2, 2, (2, rows)).astype(np.float32)
    expected = logits.astype(np.float64)
    for s in range(rows):
        for t in range(vocabulary):
            said = counts[table[s], t]
            if prompt[table[s], t] or said:
                better = expected[s, t] > 0
                expected[s, t] *= 1 / repetition[s] if better else repetition[s]
            expected[s, t] -= frequency[s] * said + presence[s] * (said > 0)
    arrays = (logits, table, prompt, counts, repetition, frequency, presence)
    got = penalize(*(torch.from_numpy(a) for a in arrays))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_forbidden_token_stays_forbidden_under_penalties() -> None:
    logits = torch.tensor([[-torch.inf, 1.0]])
    one = torch.ones(1)
    prompt, counts = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2)
    got = penalize(logits, torch.tensor([0]), prompt, counts, 2 * one, -one, one)
    assert got[0, 0] == -torch.inf


def test_count_tokens_counts_a_token_that_comes_twice_twice() -> None:
    counts = torch.zeros(2, 4, dtype=torch.int32)
    result = count_tokens(counts, torch.tensor([0, 1, 0]), torch.tensor([3, 0, 3]))
    assert result is counts
    assert counts.tolist() == [[0, 0, 0, 2], [1, 0, 0, 0]]


def test_add_bias_adds_where_it_is_told_and_can_forbid() -> None:
    rows, tokens = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    got = add_bias(torch.zeros(2, 3), rows, tokens, torch.tensor([1.5, -torch.inf, -2.0]))
    assert got.tolist() == [[0, 0, 1.5], [-torch.inf, -2.0, 0]]


def test_logprobs_are_natural_and_ordered() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 9), np.float32))
    tokens = torch.tensor([4, 0, 8])
    chosen, values, ids = logprobs(logits, tokens, 3)
    exact = logits.double().numpy()
    exact -= np.log(np.exp(exact).sum(1, keepdims=True))
    np.testing.assert_allclose(chosen, exact[range(3), tokens], rtol=1e-5)
    best = np.argsort(-exact, axis=1)[:, :3]
    assert ids.tolist() == best.tolist()
    np.testing.assert_allclose(values, np.take_along_axis(exact, best, 1), rtol=1e-5)


@given(st.integers(1, 100), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_token_mask_forbids_token_by_token(vocabulary: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.standard_normal((4, vocabulary), np.float32))
    words = rng.integers(-(2**31), 2**31, (2, -(-vocabulary // 32))).astype(np.int32)
    got = apply_token_mask(logits.clone(), torch.from_numpy(words), torch.tensor([3, 1]))
    assert torch.equal(got[[0, 2]], logits[[0, 2]])
    for mask, row in zip(words.tolist(), (3, 1), strict=True):
        for token in range(vocabulary):
            allowed = mask[token // 32] >> token % 32 & 1
            assert got[row, token] == (logits[row, token] if allowed else -torch.inf)
