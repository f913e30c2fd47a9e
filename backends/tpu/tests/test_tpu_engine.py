"""The whole engine on JAX's CPU device: the tokens are those of the reference backend."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX is not installed: pip install -r ci/jax.txt")

from inarch.errors import UnsupportedError
from inarch.sampling import SamplingParams

from .random_models import VOCABULARY, make

Start = Callable[..., Any]
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
EVERYTHING = SamplingParams(
    temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, seed=4, max_tokens=12, min_tokens=5,
    repetition_penalty=1.2, presence_penalty=0.3, logprobs=3, logit_bias={3: 2.0}, ignore_eos=True,
)  # fmt: skip
SCORED = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, prompt_logprobs=2)


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(VOCABULARY), k=length)


PROMPTS = [prompt_of(n, n) for n in (1, 16, 75)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = make(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


def tokens(answers: Any) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in answers]


@pytest.mark.parametrize("name", ["qwen3", "gemma2"])
def test_greedy_and_sampled_tokens_are_those_of_the_reference(
    start: Start, folder: Callable[[str], Path], name: str
) -> None:
    """Prompts in chunks, then behind their cached prefixes, in batches that mix them with decodes."""
    found, logprobs = {}, {}
    for backend in ("reference", "tpu"):
        with start(folder(name), backend=backend, max_step_tokens=32) as engine:
            first = engine.generate(PROMPTS, GREEDY)
            again = engine.generate(PROMPTS, GREEDY)
            sampled = engine.generate(PROMPTS, EVERYTHING)
            (scored,) = engine.generate(prompt_of(9), SCORED)
            found[backend] = [tokens(first), tokens(again), tokens(sampled)]
            logprobs[backend] = [told.logprob for told in scored.prompt_logprobs[1:]]
            assert [answer.cached_tokens for answer in again] == [0, 0, 64]
    assert found["tpu"] == found["reference"]
    assert logprobs["tpu"] == pytest.approx(logprobs["reference"], abs=1e-4)
    assert found["tpu"][0] == found["tpu"][1]


@pytest.mark.parametrize("name", ["gpt-oss", "deepseek-v3"])
def test_experts_sinks_and_latents_give_the_tokens_of_the_reference(
    start: Start, folder: Callable[[str], Path], name: str
) -> None:
    found = []
    for backend in ("reference", "tpu"):
        with start(folder(name), backend=backend, max_step_tokens=32) as engine:
            found.append(tokens(engine.generate(PROMPTS, GREEDY)))
            if backend == "tpu":
                assert engine.info.reference_ops == ()
    assert found[0] == found[1]


def test_a_model_with_recurrent_states_is_refused_at_the_start(
    start: Start, folder: Callable[[str], Path]
) -> None:
    with pytest.raises(UnsupportedError, match=r"a recurrent state .*--backend reference"):
        start(folder("falcon-h1"))


def test_the_bundled_model_answers_as_on_the_reference(start: Start) -> None:
    found = []
    for backend in ("reference", "tpu"):
        with start(None, backend=backend) as engine:
            found.append(engine.generate("What is the capital of France?", GREEDY)[0].text)
            if backend == "tpu":
                assert engine.info.reference_ops == ()
    assert found[0] == found[1]


def test_four_chips_give_the_tokens_of_one(start: Start, folder: Callable[[str], Path]) -> None:
    found = []
    for chips in (1, 4):
        with start(folder("qwen3"), chips=chips) as engine:
            found.append([*tokens(engine.generate(PROMPTS, GREEDY)), engine.info.device])
    assert found[0][:-1] == found[1][:-1]
    assert found[1][-1].startswith("4 x ")
