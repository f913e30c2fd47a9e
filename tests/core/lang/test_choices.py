"""`select` scores choices exactly, and each method picks what its definition says."""

from __future__ import annotations

import numpy as np
import pytest

import inarch.lang as sgl
from inarch import Engine, SamplingParams
from inarch.lang import State
from inarch.lang.choices import Scored

CHOICES = ["Paris.", "Rome.", "the big city of Berlin."]


@sgl.function
def choose(s: State, method: sgl.ChoicesMethod) -> None:
    s += "The capital of France is "
    s += sgl.select("city", CHOICES, choices_method=method)
    s += " So it is."


def test_the_scores_are_the_models_log_probabilities(engine: Engine) -> None:
    state = choose.run(method=sgl.token_length_normalized)
    scores = state.get_meta_info("city")["input_token_logprobs"]
    prompt = engine.tokenizer.encode("The capital of France is ")
    for choice, found in zip(CHOICES, scores, strict=True):
        tokens = engine.tokenizer.encode(choice, False)
        asked = SamplingParams(max_tokens=0, prompt_logprobs=0, logprob_start=len(prompt))
        (answer,) = engine.generate([[*prompt, *tokens]], asked)
        expected = [entry.logprob for entry in answer.prompt_logprobs]
        np.testing.assert_allclose([logprob for logprob, _, _ in found], expected, atol=1e-4)
        assert [token for _, token, _ in found] == tokens
    assert state.text() == f"The capital of France is {state['city']} So it is."


@pytest.mark.parametrize(
    ("method", "index"),
    [
        (sgl.token_length_normalized, 1),
        (sgl.greedy_token_selection, 0),
        (sgl.unconditional_likelihood_normalized, 2),
    ],
)
def test_each_method_has_its_own_taste(method: sgl.ChoicesMethod, index: int) -> None:
    scored = [
        Scored("a", (1, 2), ("a", "a"), (-0.1, -3.0), (-0.2, -3.0)),  # the likeliest first token
        Scored("b", (3, 4), ("b", "b"), (-0.5, -0.5), (-0.5, -0.5)),  # the best mean
        Scored("c", (5,), ("c",), (-2.0,), (-6.0,)),  # what the prompt makes likelier
    ]
    assert method(scored).index == index


@pytest.mark.parametrize(
    "method",
    [
        sgl.token_length_normalized,
        sgl.greedy_token_selection,
        sgl.unconditional_likelihood_normalized,
    ],
)
def test_every_method_runs(method: sgl.ChoicesMethod) -> None:
    assert choose.run(method=method)["city"] in CHOICES
