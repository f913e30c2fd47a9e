"""Synthetic workloads: equal by seed, of the shape that was asked for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from inarch.bench.lengths import SharedPrefix, Uniform
from inarch.bench.workload import (
    WORDS,
    BenchRequest,
    WorkloadConfig,
    synthetic_requests,
    warmup_requests,
)
from inarch.errors import ConfigError

CONFIG = WorkloadConfig(
    num_requests=40,
    input_len=Uniform(5, 50),
    output_len=Uniform(3, 9),
    request_rate=10.0,
    vocab_size=1000,
    seed=7,
)


def token_ids(request: BenchRequest) -> tuple[int, ...]:
    assert isinstance(request.prompt, tuple)
    return request.prompt


def test_a_seed_makes_the_same_requests_again_and_another_seed_makes_others() -> None:
    assert synthetic_requests(CONFIG) == synthetic_requests(CONFIG)
    assert synthetic_requests(CONFIG) != synthetic_requests(replace(CONFIG, seed=8))


def test_a_seed_means_the_same_requests_in_every_version() -> None:
    first = synthetic_requests(replace(CONFIG, num_requests=1, input_len=Uniform(4, 4)))[0]
    assert first == BenchRequest(0, (559, 633, 56, 574), 4, 8, pytest.approx(0.2939948))


def test_another_rate_or_output_length_leaves_the_prompts_alone() -> None:
    other = replace(CONFIG, request_rate=math.inf, output_len=Uniform(100, 200))
    prompts = [request.prompt for request in synthetic_requests(CONFIG)]
    assert [request.prompt for request in synthetic_requests(other)] == prompts


def test_prompts_of_token_ids_are_exactly_as_long_as_planned() -> None:
    for request in synthetic_requests(CONFIG):
        assert len(token_ids(request)) == request.input_len
        assert 5 <= request.input_len <= 50
        assert 3 <= request.output_len <= 9


def test_token_ids_keep_clear_of_both_ends_of_the_vocabulary_where_special_tokens_lie() -> None:
    ids = {i for request in synthetic_requests(CONFIG) for i in token_ids(request)}
    assert min(ids) >= 10
    assert max(ids) < 990


def test_prompts_are_words_when_the_vocabulary_is_unknown() -> None:
    for request in synthetic_requests(replace(CONFIG, vocab_size=None)):
        assert isinstance(request.prompt, str)
        words = request.prompt.split()
        assert len(words) == request.input_len
        assert set(words) <= set(WORDS)


def test_no_two_prompts_begin_alike_unless_a_prefix_is_shared() -> None:
    config = replace(CONFIG, vocab_size=100_000)
    assert len({token_ids(r)[:3] for r in synthetic_requests(config)}) == 40


@pytest.mark.parametrize("vocab_size", [100_000, None])
def test_requests_of_a_group_share_their_prefix_and_groups_are_of_equal_size(
    vocab_size: int | None,
) -> None:
    shared = SharedPrefix(groups=4, length=16)
    requests = synthetic_requests(replace(CONFIG, shared_prefix=shared, vocab_size=vocab_size))
    prompts = [r.prompt.split() if isinstance(r.prompt, str) else token_ids(r) for r in requests]
    groups = Counter(tuple(prompt[:16]) for prompt in prompts)
    assert list(groups.values()) == [10, 10, 10, 10]
    assert len({tuple(prompt[16:]) for prompt in prompts}) == 40
    assert all(len(p) == r.input_len for p, r in zip(prompts, requests, strict=True))


def test_groups_come_in_mixed_order() -> None:
    shared = SharedPrefix(groups=2, length=8)
    requests = synthetic_requests(replace(CONFIG, shared_prefix=shared))
    order = [token_ids(request)[:8] for request in requests]
    assert order != sorted(order)
    assert order != [order[i % 2] for i in range(40)]


def test_arrivals_are_in_order_at_the_rate_asked_for() -> None:
    offsets = [r.offset_s for r in synthetic_requests(replace(CONFIG, num_requests=4000))]
    assert offsets == sorted(offsets)
    gaps = [b - a for a, b in pairwise([0.0, *offsets])]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / 10, rel=0.05)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert math.sqrt(variance) == pytest.approx(mean, rel=0.1)  # as a Poisson process has it


def test_an_infinite_rate_sends_all_at_once() -> None:
    requests = synthetic_requests(replace(CONFIG, request_rate=math.inf))
    assert {request.offset_s for request in requests} == {0.0}


def test_warm_up_requests_have_the_sizes_of_the_measured_ones_but_other_prompts() -> None:
    requests = synthetic_requests(CONFIG)
    warmup = warmup_requests(requests, 50, CONFIG)
    assert [w.input_len for w in warmup[:40]] == [r.input_len for r in requests]
    assert [w.output_len for w in warmup[40:]] == [r.output_len for r in requests[:10]]
    assert not {w.prompt for w in warmup} & {r.prompt for r in requests}
    assert {w.offset_s for w in warmup} == {0.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_requests": 0}, r"num_requests \(0\)"),
        ({"request_rate": 0.0}, r"request_rate \(0\)"),
        ({"request_rate": math.nan}, r"request_rate \(nan\)"),
        ({"vocab_size": 1}, r"vocab_size \(1\)"),
        ({"dataset": Path("x.jsonl")}, "brings its own prompts"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **wrong)  # type: ignore[arg-type]
