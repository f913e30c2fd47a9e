"""The whole engine against transformers: the same tokens, however requests are cut, shared or evicted."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.errors import ConfigError, InvalidRequestError, OutOfMemoryError
from inarch.sampling import SamplingParams

from ..models.oracle import Saved
from ..models.zoo.example import SMALL

GREEDY = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
FAMILIES = ["llama", "mistral-window", "qwen2-windows", "qwen3", "youtu"]

Start = Callable[..., Engine]
Served = Callable[[str], Saved]


def random_prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(int(SMALL["vocab_size"])), k=length)


def oracle(saved: Saved, prompt: list[int], new_tokens: int = 64) -> list[int]:
    """Greedy tokens of transformers."""
    with torch.inference_mode():
        ids = saved.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return ids[0, len(prompt) :].tolist()


@pytest.mark.parametrize("page_size", [1, 16, 128])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_transformers(
    start: Start, served: Served, family: str, page_size: int
) -> None:
    """Prompts of many lengths in one batch, cut into odd chunks."""
    prompts = [random_prompt(length, length) for length in (1, 16, 17, 75)]
    with start(family, page_size=page_size, max_step_tokens=13) as engine:
        answers = engine.generate(prompts, GREEDY)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.token_ids) == oracle(served(family), prompt)


@pytest.mark.parametrize("page_size", [1, 16, 128])
def test_a_cached_prefix_changes_no_token(start: Start, served: Served, page_size: int) -> None:
    shared = random_prompt(150)
    prompts = [shared + random_prompt(length, length) for length in (1, 5, 30)]
    with start(page_size=page_size) as engine:
        engine.generate(shared, GREEDY)
        answers = engine.generate(prompts, GREEDY)
        again = engine.generate(prompts[2], GREEDY)[0]
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.cached_tokens == 150 // page_size * page_size
        assert list(answer.token_ids) == oracle(served("llama"), prompt)
    assert again.cached_tokens == 179 // page_size * page_size
    assert again.token_ids == answers[2].token_ids


def test_a_multi_turn_prompt_finds_the_previous_answer_in_the_cache(start: Start) -> None:
    with start(page_size=1) as engine:
        prompt = random_prompt(20)
        answer = engine.generate(prompt, GREEDY)[0]
        follow_up = [*prompt, *answer.token_ids, 5, 6]
        assert engine.generate(follow_up, GREEDY)[0].cached_tokens >= 20 + 64 - 1


def test_requests_that_share_a_new_prefix_compute_it_once(start: Start, served: Served) -> None:
    shared = random_prompt(128)
    prompts = [[*shared, tail] for tail in range(8)]
    with start() as engine:
        answers = engine.generate(prompts, GREEDY)
    assert sum(answer.cached_tokens for answer in answers) == 7 * 128
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.token_ids) == oracle(served("llama"), prompt)


def test_retraction_under_memory_pressure_loses_no_token(start: Start, served: Served) -> None:
    prompts = [random_prompt(30, seed) for seed in range(8)]
    with start(kv_tokens=256) as engine:  # room for less than three of the eight
        answers = engine.generate(prompts, GREEDY)
        assert engine.stats().retractions > 0
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.token_ids) == oracle(served("llama"), prompt)


def test_a_seeded_answer_is_the_same_alone_in_a_batch_and_after_retraction(start: Start) -> None:
    params = SamplingParams(
        max_tokens=64, seed=7, top_p=0.9, frequency_penalty=0.5, repetition_penalty=1.1
    )
    prompts = [random_prompt(30, seed) for seed in range(8)]
    with start() as engine:
        alone = engine.generate(prompts[3], params)[0]
        together = engine.generate(prompts, params)[3]
    with start(kv_tokens=256) as engine:
        squeezed = engine.generate(prompts, params)[3]
        assert engine.stats().retractions > 0
    assert alone.token_ids == together.token_ids == squeezed.token_ids


def test_another_seed_gives_another_answer_from_the_next_request_on(start: Start) -> None:
    with start() as engine:
        seeded = [
            engine.generate([1, 2, 3], SamplingParams(max_tokens=16, seed=seed))[0].token_ids
            for seed in (1, 2, 1)
        ]
    assert seeded[0] == seeded[2] != seeded[1]


def test_without_a_seed_two_answers_differ(start: Start) -> None:
    params = SamplingParams(max_tokens=32, n=2)
    with start() as engine:
        first, second = engine.generate([1, 2, 3], params)
        assert first.token_ids != second.token_ids
        assert engine.generate([1, 2, 3], params)[0].token_ids != first.token_ids


def test_logprobs_are_those_of_transformers(start: Start, served: Served) -> None:
    prompt = random_prompt(20)
    params = SamplingParams(temperature=0.7, seed=1, max_tokens=10, logprobs=5, presence_penalty=1)
    with start() as engine:
        answer = engine.generate(prompt, params)[0]
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *answer.token_ids]])
        expected = served("llama").model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    for token, logprob, row in zip(answer.token_ids, answer.logprobs, expected, strict=True):
        assert logprob.token_id == token
        assert logprob.logprob == pytest.approx(float(row[token]), abs=2e-4)
        assert [value for _, value in logprob.top] == pytest.approx(
            row.topk(5)[0].tolist(), abs=2e-4
        )


def test_a_request_ends_at_a_stop_token_but_not_before_min_tokens(start: Start) -> None:
    prompt = random_prompt(20)
    with start() as engine:
        free = engine.generate(prompt, GREEDY)[0].token_ids
        stop = SamplingParams(temperature=0, max_tokens=64, stop_token_ids=(free[3],))
        early = engine.generate(prompt, stop)[0]
        later = engine.generate(
            prompt,
            SamplingParams(temperature=0, max_tokens=64, stop_token_ids=(free[3],), min_tokens=10),
        )[0]
    assert early.token_ids == free[: free.index(free[3]) + 1]
    assert early.finish_reason == "stop"
    assert len(later.token_ids) >= 10
    assert free[3] not in later.token_ids[:9]


def test_a_stop_string_ends_the_text_across_token_borders(start: Start) -> None:
    prompt = random_prompt(20)
    with start() as engine:
        free = engine.generate(prompt, GREEDY)[0]
        stop = free.text[5:8]
        params = SamplingParams(temperature=0, max_tokens=64, stop=(stop,), ignore_eos=True)
        cut = engine.generate(prompt, params)[0]
    assert cut.finish_reason == "stop"
    assert cut.text == free.text[: free.text.index(stop)]
    assert len(cut.token_ids) < 64


def test_logit_bias_forces_and_forbids(start: Start) -> None:
    with start() as engine:
        forced = SamplingParams(max_tokens=8, logit_bias={17: 100.0})
        assert set(engine.generate([1, 2], forced)[0].token_ids) == {17}
        banned = SamplingParams(max_tokens=64, temperature=3.0, seed=0, logit_bias={17: -100.0})
        assert 17 not in engine.generate([1, 2], banned)[0].token_ids


def test_repetition_is_penalized_over_prompt_and_output(start: Start) -> None:
    params = SamplingParams(temperature=0, max_tokens=40, frequency_penalty=2.0, presence_penalty=2)
    with start() as engine:
        tokens = engine.generate([1, 2, 3], params)[0].token_ids
        assert np.unique(tokens).size > 30
        plain = engine.generate([1, 2, 3], SamplingParams(temperature=0, max_tokens=40))[0]
    assert np.unique(plain.token_ids).size < np.unique(tokens).size


def test_two_open_streams_run_in_one_batch_and_keep_their_tokens(start: Start) -> None:
    prompts = [random_prompt(20, 1), random_prompt(30, 2)]
    with start() as engine:
        alone = [engine.generate(prompt, GREEDY)[0].token_ids for prompt in prompts]
        streams = [engine.stream(prompt, GREEDY) for prompt in prompts]
        together = [[], []]
        for outputs in zip(*streams, strict=True):
            for tokens, output in zip(together, outputs, strict=True):
                tokens += output.token_ids
    assert [tuple(tokens) for tokens in together] == alone


def test_the_models_own_recommendation_is_the_default(
    start: Start, served: Served, tmp_path: Path
) -> None:
    recommended = {"temperature": 0.4, "top_k": 7, "top_p": 0.8, "do_sample": True}
    folder = tmp_path / "model"
    shutil.copytree(served("llama").folder, folder)
    (folder / "generation_config.json").write_text(json.dumps(recommended))
    config = EngineConfig(model=str(folder), backend="reference", kv_tokens=1024, random_seed=3)
    with Engine(config) as engine:
        assert engine.info.default_sampling == {"temperature": 0.4, "top_k": 7, "top_p": 0.8}
        (tokens,) = engine.generate(random_prompt(9))
        drawn = SamplingParams(temperature=0.4, top_k=7, top_p=0.8)
    with Engine(config) as engine:
        assert engine.generate(random_prompt(9), drawn)[0].token_ids == tokens.token_ids


def test_a_prompt_may_be_a_numpy_array_but_not_a_number(start: Start) -> None:
    with start() as engine:
        ids = random_prompt(9)
        assert engine.generate(np.array(ids), GREEDY) == engine.generate(ids, GREEDY)
        with pytest.raises(InvalidRequestError, match="got int"):
            engine.generate(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("tiny", [{"temperature": 1e-39}, {"temperature": 1e-6}])
def test_a_tiny_temperature_is_greedy(start: Start, tiny: dict[str, float]) -> None:
    with start() as engine:
        greedy = engine.generate([1, 2, 3], SamplingParams(temperature=0, max_tokens=8))[0]
        assert engine.generate([1, 2, 3], SamplingParams(max_tokens=8, **tiny))[0] == greedy


def test_leaving_a_stream_early_frees_its_memory(start: Start) -> None:
    with start() as engine:
        for output in engine.stream(random_prompt(40), GREEDY):
            if output.completion_tokens == 3:
                break
        engine.generate([1], SamplingParams(max_tokens=1))
        stats = engine.stats()
    assert stats.running == stats.waiting == stats.kv_pages_used == 0


def test_the_answer_ends_where_the_context_does(start: Start) -> None:
    with start(context_length=32) as engine:
        answer = engine.generate(random_prompt(30), SamplingParams(ignore_eos=True))[0]
        assert (len(answer.token_ids), answer.finish_reason) == (2, "length")
        with pytest.raises(InvalidRequestError, match=r"has 32 tokens.*32 tokens"):
            engine.generate(random_prompt(32))


def test_a_prompt_longer_than_the_kv_memory_is_refused(start: Start) -> None:
    with start(kv_tokens=64) as engine:
        with pytest.raises(InvalidRequestError, match="KV memory"):
            engine.generate(random_prompt(100))
        assert len(engine.generate(random_prompt(60), GREEDY)[0].token_ids) == 4


def test_impossible_settings_are_refused_with_the_cure(start: Start) -> None:
    with pytest.raises(OutOfMemoryError, match="--kv-tokens"):
        start(kv_tokens=10**12)
    with pytest.raises(ConfigError, match="exceeds the 512 positions"):
        start(context_length=1024)
    with pytest.raises(ConfigError, match="--kernels nonsense=fast"):
        start(kernels={"nonsense": "fast"})


def test_dummy_weights_need_no_weights(start: Start, served: Served) -> None:
    with start(load_format="dummy") as engine:
        first = engine.generate([1, 2, 3], GREEDY)[0].token_ids
    with start(load_format="dummy") as engine:
        assert engine.generate([1, 2, 3], GREEDY)[0].token_ids == first
    assert list(first) != oracle(served("llama"), [1, 2, 3])
