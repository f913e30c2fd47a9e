"""Sampling without a sort against the ops' references, and against the definition in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, not with this one")

from inarch.hal.ops import OPS
from inarch_triton.kernels import SAMPLING, kernels
from inarch_triton.survey import CHUNK

GPU = torch.accelerator.is_available()
KERNELS = {kernel.op: kernel for kernel in kernels("sm_90") if kernel.op in SAMPLING}
OFF = 1 << 30  # a top_k that keeps everything
ROUNDING = 1e-5  # of sums of float32, relative to the whole
NEARLY_ONE = float(np.float32(1 - 2**-24))
VOCABULARIES = [1, 2, 50, CHUNK, CHUNK + 1, *([128_256, 262_144] if GPU else [])]


def run(op: str, device, *args: object) -> object:
    there = [x.clone().to(device.torch_device) if isinstance(x, Tensor) else x for x in args]
    got = KERNELS[op].load()(*there)
    return tuple(x.cpu() for x in got) if isinstance(got, tuple) else got.cpu()


def random_logits(seed: int, rows: int, vocabulary: int, scale: float = 3.0) -> Tensor:
    values = np.random.default_rng(seed).standard_normal((rows, vocabulary), np.float32)
    return torch.from_numpy(values * np.float32(scale))


def kept(logits: np.ndarray, temperature: float, cuts: tuple, slack: float) -> np.ndarray:
    """Probabilities [V] of float64, 0 where cut; with slack, what may be kept or (negative) must."""
    top_k, top_p, min_p = cuts
    weights = np.exp((logits - logits.max()) / temperature)
    p = weights / weights.sum()
    order = np.argsort(-logits, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    within = np.arange(len(p)) < top_k
    within &= (before < top_p + slack) | (top_p >= 1)
    within &= p[order] >= min_p * p.max() * (1 - slack)
    within[0] = True
    return np.where(within[np.argsort(order, kind="stable")], p, 0.0)


def assert_allowed(
    token: int, logits: Tensor, temperature: float, uniform: float, cuts: tuple
) -> None:
    """The token is what `sample` defines, but for rounding."""
    assert 0 <= token < len(logits)
    if temperature == 0:
        assert token == int(logits.argmax())
        return
    row = logits.double().numpy()
    temperature = float(np.float32(temperature))
    cuts = (cuts[0], float(np.float32(cuts[1])), float(np.float32(cuts[2])))
    may, must = (kept(row, temperature, cuts, slack) for slack in (ROUNDING, -ROUNDING))
    assert may[token] > 0, "a token that is cut is never drawn"
    least, most = must[:token].sum(), may[: token + 1].sum()
    assert least / (least + may[token:].sum()) <= uniform + ROUNDING
    assert most / (most + must[token + 1 :].sum()) >= uniform - ROUNDING


def sample_rows(device, logits: Tensor, rows: list[tuple], *, filters: str = "kpm") -> list[int]:
    """One token for each (temperature, uniform, top_k, top_p, min_p)."""
    temperature, uniform, top_k, top_p, min_p = (list(column) for column in zip(*rows, strict=True))
    args = [torch.tensor(values, dtype=torch.float32) for values in (temperature, uniform)]
    args.append(torch.tensor(top_k, dtype=torch.int32) if "k" in filters else None)
    args.append(torch.tensor(top_p, dtype=torch.float32) if "p" in filters else None)
    args.append(torch.tensor(min_p, dtype=torch.float32) if "m" in filters else None)
    got = run("sample", device, logits, *args)
    assert got.dtype == torch.int64
    return got.tolist()


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_greedy_takes_the_best_token_and_of_equals_the_lowest(vocabulary: int, device) -> None:
    logits = random_logits(vocabulary, 5, vocabulary).round()  # many ties
    logits[1] = -torch.inf
    logits[2] = 0.0
    logits[2, ::2] = -0.0
    logits[3, vocabulary // 2] = torch.inf
    got = run("greedy", device, logits)
    assert got.dtype == torch.int64
    assert torch.equal(got, OPS["greedy"](logits))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_greedy_takes_the_first_nan_as_torch_does(sign: float, device) -> None:
    logits = random_logits(0, 2, CHUNK + 100)
    logits[0, 60] = torch.inf
    logits[0, [70, CHUNK + 3]] = math.copysign(torch.nan, sign)
    assert torch.equal(run("greedy", device, logits), OPS["greedy"](logits))


def test_a_row_may_be_part_of_a_wider_array(device) -> None:
    wide = random_logits(1, 3, 200).to(device.torch_device)
    logits = wide[:, 50:150]
    assert torch.equal(KERNELS["greedy"].load()(logits), logits.argmax(-1))
    half = torch.full((3,), 0.5, device=wide.device)
    got = KERNELS["sample"].load()(logits, half, half, None, half, None)
    assert torch.equal(got, OPS["sample"](logits, half, half, None, half, None))


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_without_filters_the_draw_inverts_the_distribution(vocabulary: int, device) -> None:
    uniforms = [0.0, 1e-4, 0.3, 0.5, 0.9, 0.9999, NEARLY_ONE]
    temperatures = [1.0, 0.0, 1e-5, 0.3, 2.0, 100.0, 1.0]
    logits = random_logits(2, len(uniforms), vocabulary)
    rows = [(t, u, OFF, 1.0, 0.0) for t, u in zip(temperatures, uniforms, strict=True)]
    for token, row, x in zip(
        sample_rows(device, logits, rows, filters=""), rows, logits, strict=True
    ):
        assert_allowed(token, x, row[0], row[1], row[2:])


ROWS = [  # temperature, uniform, top_k, top_p, min_p
    (1.0, 0.5, 5, 1.0, 0.0),
    (1.0, NEARLY_ONE, 1, 1.0, 0.0),
    (0.0, 0.7, 3, 0.5, 0.1),
    (0.7, 0.0, OFF, 0.9, 0.0),
    (1.5, 0.99, OFF, 0.95, 0.0),
    (1.0, 0.4, OFF, 1.0, 0.2),
    (1.0, NEARLY_ONE, OFF, 1.0, 1.0),
    (3.0, 0.8, 40, 0.99, 0.01),
    (1e-5, 0.8, 40, 0.99, 0.01),
    (1.0, 0.6, OFF, 1.0, 0.0),
    (1.0, 0.9, OFF, 0.0, 0.0),
    (50.0, 0.9, 30, 0.9, 0.0),
]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_row_has_its_own_filters(vocabulary: int, device) -> None:
    logits = random_logits(3, len(ROWS), vocabulary)
    for token, row, x in zip(sample_rows(device, logits, ROWS), ROWS, logits, strict=True):
        assert_allowed(token, x, row[0], row[1], row[2:])


@pytest.mark.parametrize("filters", ["k", "p", "m", "kp"])
def test_filters_that_no_row_has_may_be_left_out(filters: str, device) -> None:
    logits = random_logits(4, 4, 60)
    off = {"k": OFF, "p": 1.0, "m": 0.0}
    for token, row, x in zip(
        sample_rows(device, logits, ROWS[5:9], filters=filters), ROWS[5:9], logits, strict=True
    ):
        names = zip("kpm", row[2:], strict=True)
        cuts = tuple(value if name in filters else off[name] for name, value in names)
        assert_allowed(token, x, row[0], row[1], cuts)


@pytest.mark.parametrize("cuts", [(6, 1.0, 0.0), (OFF, 0.37, 0.0), (6, 0.37, 0.0)])
def test_of_tokens_that_share_the_cut_the_lowest_ids_are_kept(cuts: tuple, device) -> None:
    """Two better tokens among equals, in two chunks: all that is kept is drawn, and nothing else."""
    logits = torch.zeros(CHUNK + 20)
    logits[:-40] = -torch.inf  # 20 equals on either side of the border
    logits[[-30, -3]] = 1.0
    count = 16
    rows = [(1.0, (i + 0.5) / count, *cuts) for i in range(count)]
    drawn = set(sample_rows(device, logits.expand(count, -1), rows))
    expected = kept(logits.double().numpy(), 1.0, cuts, 0.0)
    assert drawn == set(np.flatnonzero(expected).tolist())


@pytest.mark.parametrize("value", [0.0, -7.5, -3e38])
def test_a_row_of_equal_logits_is_drawn_from_evenly(value: float, device) -> None:
    logits = torch.full((4, 100), value)
    rows = [(1.0, u, 10, 0.55, 0.0) for u in (0.0, 0.31, 0.77, NEARLY_ONE)]
    assert sample_rows(device, logits, rows) == [0, 3, 7, 9]


def test_masked_tokens_are_never_drawn(device) -> None:
    logits = random_logits(5, 6, 300)
    logits[:, ::2] = -torch.inf
    logits[:, 1::4] = torch.finfo(torch.float32).min
    uniforms = [0, 0.2, 0.4, 0.6, 0.8, NEARLY_ONE]
    rows = [(2.0, u, k, 1.0, 0.0) for u, k in zip(uniforms, [OFF, 299] * 3, strict=True)]
    for filters in ("", "k"):
        assert all(token % 4 == 3 for token in sample_rows(device, logits, rows, filters=filters))


def test_a_row_without_probabilities_gives_a_token_all_the_same(device) -> None:
    logits = random_logits(6, 4, 30)
    logits[0] = -torch.inf
    logits[1, 7] = torch.inf
    logits[2, 9] = torch.nan
    for filters in ("", "kpm"):
        rows = [(1.0, 0.5, 5, 0.9, 0.1)] * 4
        got = sample_rows(device, logits, rows, filters=filters)
        assert got[:3] == [0, 0, 0]
        assert 0 <= got[3] < 30


def test_a_row_does_not_depend_on_the_others(device) -> None:
    logits = random_logits(7, 6, 500)
    rows = ROWS[3:9]
    together = sample_rows(device, logits, rows)
    for i in (0, 3):
        assert sample_rows(device, logits[i : i + 1], rows[i : i + 1]) == [together[i]]


def test_empty_batches(device) -> None:
    logits, none, ids = torch.empty(0, 10), torch.empty(0), torch.empty(0, dtype=torch.int64)
    assert run("greedy", device, logits).shape == (0,)
    assert run("sample", device, logits, none, none, None, none).shape == (0,)
    assert [x.shape for x in run("logprobs", device, logits, ids, 3)] == [(0,), (0, 3), (0, 3)]


# A GPU compiles every kernel once more for each vocabulary: so there are fewer of them there.
SOME = [1, 64, CHUNK + 5, 50_257] if GPU else [1, 3, 17, 64, 257, 1000, CHUNK + 5]


@settings(max_examples=60 if GPU else 12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.sampled_from(SOME),
    scale=st.sampled_from([1e-3, 0.5, 3.0, 30.0]),
    rounded=st.booleans(),
    masked=st.sampled_from([0.0, 0.5, 0.99]),
    rows=st.lists(
        st.tuples(
            st.sampled_from([0.0, 1e-5, 0.1, 0.7, 1.0, 2.0, 1e4]),
            st.sampled_from([0.0, NEARLY_ONE]) | st.floats(0, NEARLY_ONE, width=32),
            st.sampled_from([1, 2, 10, 100, OFF]),
            st.sampled_from([1.0]) | st.floats(0, 1, width=32),
            st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=32),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_what_is_drawn_is_what_the_op_defines(
    seed: int, vocabulary: int, scale: float, rounded: bool, masked: float, rows: list, device
) -> None:
    logits = random_logits(seed, len(rows), vocabulary, scale)
    logits = logits.round() if rounded else logits
    hidden = torch.from_numpy(np.random.default_rng(seed).random(logits.shape) < masked)
    hidden[:, vocabulary // 2] = False
    logits[hidden] = -torch.inf
    for token, row, x in zip(sample_rows(device, logits, rows), rows, logits, strict=True):
        assert_allowed(token, x, row[0], row[1], row[2:])


@pytest.mark.parametrize("filters", ["", "kp"])
def test_shares_of_evenly_spaced_draws_are_the_probabilities(filters: str, device) -> None:
    count = 4000 if GPU else 30
    logits = random_logits(8, 1, 9, 1.0)
    cuts = (6, 0.9, 0.0) if filters else (OFF, 1.0, 0.0)
    rows = [(1.3, (i + 0.5) / count, *cuts) for i in range(count)]
    drawn = np.bincount(
        sample_rows(device, logits.expand(count, -1), rows, filters=filters), minlength=9
    )
    expected = kept(logits[0].double().numpy(), float(np.float32(1.3)), cuts, 0.0)
    assert np.abs(drawn - count * expected / expected.sum()).max() <= 1 + count * ROUNDING


def test_draws_go_on_from_chunk_to_chunk_by_rising_id(device) -> None:
    logits = torch.full((3 * CHUNK - 5,), -torch.inf)
    places = [3, 90, CHUNK + 1, CHUNK + 2, 2 * CHUNK + 7, 3 * CHUNK - 6]
    logits[places] = 2.5
    rows = [(0.4, (i + 0.5) / 6, OFF, 1.0, 0.0) for i in range(6)]
    for filters in ("", "k"):
        assert sample_rows(device, logits.expand(6, -1), rows, filters=filters) == places


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_logprobs_are_those_of_a_sort(vocabulary: int, device) -> None:
    logits = random_logits(9, 3, vocabulary)
    logits[1] *= 20
    top = min(20 if GPU else 6, vocabulary)
    tokens = torch.tensor([0, vocabulary // 2, vocabulary - 1])
    got = run("logprobs", device, logits, tokens, top)
    for ours, theirs in zip(got, OPS["logprobs"](logits, tokens, top), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_logprobs_give_each_of_equal_tokens_once_by_rising_id(device) -> None:
    logits = torch.full((1, CHUNK + 4), -torch.inf)
    logits[0, [5, 9, CHUNK + 1]] = 1.0
    _, values, ids = run("logprobs", device, logits, torch.tensor([9]), 5)
    assert ids.tolist() == [[5, 9, CHUNK + 1, 0, 1]]
    torch.testing.assert_close(values[0, :3], torch.full((3,), -math.log(3)))
    assert values[0, 3:].tolist() == [-math.inf] * 2
    assert run("logprobs", device, logits, torch.tensor([9]), 0)[1].shape == (1, 0)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_penalties(vocabulary: int, device) -> None:
    rng = np.random.default_rng(vocabulary)
    logits = random_logits(10, 3, vocabulary)
    logits[0, 0] = -torch.inf
    rows = torch.tensor([4, 0, 2])
    prompt = torch.from_numpy(rng.random((5, vocabulary)) < 0.3)
    counts = torch.from_numpy(rng.integers(0, 3, (5, vocabulary)).astype(np.int32))
    repetition, frequency, presence = torch.tensor([[1.5, 1, 0.8], [0.5, 0, -1], [-0.3, 0, 1]])
    args = (logits, rows, prompt, counts, repetition, frequency, presence)
    got = run("penalize", device, *args)
    torch.testing.assert_close(got, OPS["penalize"](*args), rtol=1e-5, atol=1e-5)
    assert torch.equal(got[1], logits[1]), "nothing is asked of this one"


def test_counts_and_biases_add_up_where_a_place_comes_twice(device) -> None:
    rows, tokens = torch.tensor([0, 1, 0] * 50), torch.tensor([3, 0, 3] * 50)
    counts = torch.ones(2, 4, dtype=torch.int32)
    got = run("count_tokens", device, counts, rows, tokens)
    assert got.tolist() == [[1, 1, 1, 101], [51, 1, 1, 1]]
    logits, values = random_logits(11, 2, 4), torch.tensor([1.0, -torch.inf, 0.5])
    args = (logits, rows[:3], tokens[:3], values)
    torch.testing.assert_close(run("add_bias", device, *args), OPS["add_bias"](*args))


@pytest.mark.parametrize("vocabulary", [*VOCABULARIES, 4099])
def test_a_token_mask_forbids_what_it_does_not_allow_in_its_rows_alone(
    vocabulary: int, device
) -> None:
    logits = random_logits(12, 4, vocabulary)
    logits[2, 0] = -torch.inf
    words = -(-vocabulary // 32)
    random = np.random.default_rng(vocabulary).integers(-(2**31), 2**31, (3, words))
    bitmask = torch.from_numpy(random.astype(np.int32))
    bitmask[1] = -1
    args = (logits, bitmask, torch.tensor([3, 0, 2]))
    got = run("apply_token_mask", device, *args)
    assert torch.equal(got, OPS["apply_token_mask"](*args))
    assert torch.equal(got[[0, 1]], logits[[0, 1]]), "all is allowed, or nothing is said"
    for token in {0, vocabulary // 2, vocabulary - 1}:
        allowed = int(random[0, token // 32]) >> token % 32 & 1
        assert got[3, token] == (logits[3, token] if allowed else -torch.inf)
    none = run("apply_token_mask", device, logits, bitmask[:0], args[2][:0])
    assert torch.equal(none, logits)
