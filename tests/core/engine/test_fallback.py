"""The whole engine with transformers' code as the model: batching, cache and scores are the same."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from inarch.engine.engine import Engine
from inarch.errors import ConfigError, UnsupportedError
from inarch.sampling import SamplingParams

from ..models.oracle import Saved
from ..models.zoo.example import SMALL

GREEDY = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True)

Start = Callable[..., Engine]
Served = Callable[[str], Saved]


def random_prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(int(SMALL["vocab_size"])), k=length)


@pytest.mark.parametrize("family", ["llama", "qwen3-windows"])
def test_answers_are_those_of_our_own_decoder(start: Start, family: str) -> None:
    """Shared prefixes, chunks of 13 tokens, and a second round that finds the first in the cache."""
    shared = random_prompt(70)
    prompts = [[*shared, *random_prompt(length, length)] for length in (1, 5, 16, 40)]
    asked = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True, prompt_logprobs=3)
    answers = {}
    for impl in ("inarch", "transformers"):
        with start(family, model_impl=impl, max_step_tokens=13) as engine:
            engine.generate(shared, GREEDY)
            first, scored = engine.generate(prompts, GREEDY), engine.generate(prompts, asked)
            assert all(answer.cached_tokens >= 64 for answer in first)
        answers[impl] = first, scored
    for ours, theirs in zip(*(first for first, _ in answers.values()), strict=True):
        assert ours.token_ids == theirs.token_ids
    for ours, theirs in zip(*(scored for _, scored in answers.values()), strict=True):
        told = [[entry.logprob for entry in answer.prompt_logprobs] for answer in (ours, theirs)]
        assert len(told[0]) >= len(shared)
        assert told[0] == pytest.approx(told[1], abs=2e-4)


def test_seeded_sampling_and_retraction_do_not_see_the_difference(start: Start) -> None:
    params = SamplingParams(max_tokens=48, seed=7, top_p=0.9, repetition_penalty=1.1)
    prompts = [random_prompt(30, seed) for seed in range(8)]
    told = []
    for impl, kv_tokens in (("inarch", 4096), ("transformers", 4096), ("transformers", 256)):
        with start(model_impl=impl, kv_tokens=kv_tokens) as engine:
            told.append([answer.token_ids for answer in engine.generate(prompts, params)])
            assert (engine.stats().retractions > 0) == (kv_tokens == 256)
    assert told[0] == told[1] == told[2]


def test_16_bit_weights_and_8_bit_pages_pass_the_check_at_load(start: Start) -> None:
    for options in ({"dtype": "bfloat16"}, {"kv_dtype": "fp8"}):
        with start(model_impl="transformers", **options) as engine:
            assert len(engine.generate(random_prompt(20), GREEDY)[0].token_ids) == 32


def test_strict_refuses_code_that_no_kernel_serves(start: Start) -> None:
    with pytest.raises(UnsupportedError, match=r"--strict: .*transformers' plain code"):
        start(model_impl="transformers", strict=True)


def test_an_op_that_only_our_decoder_has_takes_no_kernel(start: Start) -> None:
    with pytest.raises(ConfigError, match=r"--kernels rms_norm=reference: nothing takes it"):
        start(model_impl="transformers", kernels={"rms_norm": "reference"})
    with start(model_impl="transformers", kernels={"attention": "reference"}):
        pass
