"""The whole engine on a model with latent attention, whose pages hold rows without values."""

from __future__ import annotations

from .test_engine import GREEDY, Served, Start, oracle, random_prompt


def test_a_cached_prefix_in_odd_chunks_changes_no_token(start: Start, served: Served) -> None:
    shared = random_prompt(150)
    prompts = [shared + random_prompt(length, length) for length in (1, 5, 30)]
    with start("deepseek-v3", max_step_tokens=29) as engine:
        engine.generate(shared, GREEDY)
        answers = engine.generate(prompts, GREEDY)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.cached_tokens == 144
        assert list(answer.token_ids) == oracle(served("deepseek-v3"), prompt)


def test_retraction_under_memory_pressure_loses_no_token(start: Start, served: Served) -> None:
    prompts = [random_prompt(30, seed) for seed in range(8)]
    with start("deepseek-v2-lite", kv_tokens=256) as engine:
        answers = engine.generate(prompts, GREEDY)
        assert engine.stats().retractions > 0
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.token_ids) == oracle(served("deepseek-v2-lite"), prompt)


def test_a_token_takes_one_row_a_layer_and_a_quarter_of_it_in_fp8(start: Start) -> None:
    row, layers, float32 = 32 + 8, 3, 4
    with start("deepseek-v3") as wide, start("deepseek-v3", kv_dtype="fp8") as narrow:
        pages = wide.info.memory["kv"] / (16 * layers * row * float32)
        assert pages == wide.info.kv_tokens / 16 + 1  # the null page
        assert wide.info.memory["kv"] == 4 * narrow.info.memory["kv"]
        assert len(narrow.generate(random_prompt(40), GREEDY)[0].token_ids) == 64
