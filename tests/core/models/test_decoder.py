"""The decoder gives transformers' logits, however the tokens are cut into steps and pages."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from .oracle import Saved, load
from .zoo import MODELS

TOLERANCE = 3e-4  # absolute, on float32 logits
GREEDY_TOKENS = 32
KINDS_OF_CACHE = ["mistral-window", "gemma3", "deepseek-v3"]

every_model = pytest.mark.parametrize("name", MODELS)
every_page_size = pytest.mark.parametrize(
    ("name", "page_tokens"),
    [(name, 16) for name in MODELS]
    + [(name, size) for name in KINDS_OF_CACHE for size in (1, 128)],
)
Get = Callable[[str], Saved]


def tokens(length: int, seed: int = 0) -> list[int]:
    return random.Random(f"{length} {seed}").choices(range(101), k=length)


def assert_equal(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@every_page_size
def test_a_prefill_at_once_or_in_odd_chunks_and_then_decodes(
    saved: Get, name: str, page_tokens: int
) -> None:
    prompt, model = tokens(150), saved(name)
    paged, expected = load(model.folder, page_tokens), model.logits(prompt)
    assert_equal(paged.step({0: prompt})[0], expected[-1])
    end = 0
    for size in (1, 3, 17, 1, 29, 64, 7, 13, 9, *[1] * 6):
        logits = paged.step({3: prompt[end : end + size]})[3]
        end += size
        assert_equal(logits, expected[end - 1])
    assert end == len(prompt)


@every_page_size
def test_sequences_do_not_feel_their_neighbours_in_a_ragged_batch(
    saved: Get, name: str, page_tokens: int
) -> None:
    model = saved(name)
    paged = load(model.folder, page_tokens)
    prompts = {row: tokens(60, seed=row) for row in range(5)}
    expected = {row: model.logits(prompt) for row, prompt in prompts.items()}
    ends, chance = dict.fromkeys(prompts, 0), random.Random(1)
    while unfinished := [row for row in prompts if ends[row] < 60]:
        chosen = chance.sample(unfinished, chance.randint(1, len(unfinished)))
        sizes = {row: chance.choice([1, 1, 2, 5, 33]) for row in chosen}
        chunks = {row: prompts[row][ends[row] : ends[row] + sizes[row]] for row in chosen}
        for row, logits in paged.step(chunks).items():
            ends[row] += len(chunks[row])
            assert_equal(logits, expected[row][ends[row] - 1])


@every_model
def test_a_sequence_goes_on_from_the_pages_of_another(saved: Get, name: str) -> None:
    model, prefix = saved(name), tokens(32)
    paged = load(model.folder, 16)
    paged.step({2: prefix})
    paged.fork(2, 5)
    ends = {2: tokens(19, seed=1), 5: tokens(5, seed=2)}
    for row, logits in paged.step(ends).items():
        assert_equal(logits, model.logits(prefix + ends[row])[-1])


@every_model
def test_greedy_tokens(saved: Get, name: str) -> None:
    model, prompt = saved(name), tokens(20)
    found = load(model.folder).greedy(0, prompt, GREEDY_TOKENS)
    assert found == model.greedy(prompt, GREEDY_TOKENS)


@pytest.mark.parametrize(
    "name", ["llama", "apertus", "cohere-qk-norm", "gemma3", "gpt2", "ministral3", "nemotron"]
)
def test_a_float32_checkpoint_can_run_in_bfloat16(saved: Callable[[str], Saved], name: str) -> None:
    model, prompt = saved(name), tokens(60)
    logits = load(model.folder, dtype=torch.bfloat16).step({0: prompt})[0]
    exact = model.logits(prompt)[-1]
    assert logits.dtype == torch.float32
    assert (logits - exact).norm() < 0.06 * exact.norm()
