"""LongRoPE's two sets of factors: a request changes to the second where it outgrows the first."""

from __future__ import annotations

import random

import pytest

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.sampling import SamplingParams

from ..models.oracle import Saved, make
from ..models.zoo import MODELS
from ..models.zoo.example import Example
from .conftest import save_tokenizer

ORIGINAL = 64  # tokens
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + i / 10 for i in range(8)],
    "long_factor": [1.5 + 2.0 * i for i in range(8)],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    changes = {"rope_parameters": LONGROPE, "original_max_position_embeddings": ORIGINAL}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "phi3-longrope", Example("Phi3ForCausalLM", changes))
        saved = make("phi3-longrope", tmp_path_factory.mktemp("phi3-longrope"))
    save_tokenizer(saved.folder)
    return saved


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(101), k=length)


def greedy(saved: Saved, tokens: list[int], count: int) -> list[int]:
    """transformers' logits of the whole sequence, again for each token: no cache to be outdated."""
    found = list(tokens)
    for _ in range(count):
        found.append(int(saved.logits(found)[-1].argmax()))
    return found[len(tokens) :]


@pytest.mark.parametrize("max_step_tokens", [16, 512])
def test_answers_are_those_of_transformers_below_at_and_above_the_original_context(
    model: Saved, max_step_tokens: int
) -> None:
    """Several at once, of which some grow beyond it, some begin at it, some begin beyond it."""
    lengths = (5, 40, 63, 64, 65, 100)
    prompts = [prompt(length, length) for length in lengths]
    config = EngineConfig(
        model=str(model.folder),
        backend="reference",
        kv_tokens=4096,
        max_running_requests=8,
        max_step_tokens=max_step_tokens,
    )
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    with Engine(config) as engine:
        first = engine.generate(prompts, params)
        again = engine.generate(prompts, params)  # over cached prefixes
    for tokens, answers in zip(prompts, zip(first, again, strict=True), strict=True):
        expected = greedy(model, tokens, 40)
        assert [list(answer.token_ids) for answer in answers] == [expected, expected]


def test_a_long_prompt_does_not_go_on_from_the_keys_of_a_short_one(model: Saved) -> None:
    shared, params = prompt(60), SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    config = EngineConfig(model=str(model.folder), backend="reference", kv_tokens=4096)
    with Engine(config) as engine:
        for tokens in (shared, shared + prompt(30, 1), shared):
            (answer,) = engine.generate([tokens], params)
            assert list(answer.token_ids) == greedy(model, tokens, 4)
