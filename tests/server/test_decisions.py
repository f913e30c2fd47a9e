"""/v1/decisions: probabilities of answers, against those of a model that is spelled out here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inarch_server.decisions.likelihood import branchings, likelihoods

from .harness import Server, messages
from .standin import StandIn

PATH = "/v1/decisions"
ANSWERS = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    min_size=2,
    max_size=6,
    unique=True,
)


def logits(context: tuple[int, ...], tokens: int) -> np.ndarray:
    """Any function of what came before makes a language model."""
    return np.random.default_rng([len(context), *context]).normal(size=tokens) * 2


def by_enumeration(answers: list[tuple[int, ...]], eos: int) -> list[float]:
    """The share of each answer among all texts that are one of them, sampled token by token."""
    shares = []
    for answer in answers:
        share = 1.0
        for i in range(len(answer) + 1):
            prefix = answer[:i]
            following = {(*a, eos)[i] for a in answers if a[:i] == prefix}
            weights = {token: math.exp(logits(prefix, eos + 1)[token]) for token in following}
            share *= weights[(*answer, eos)[i]] / sum(weights.values())
        shares.append(share)
    return shares


@given(answers=ANSWERS)
def test_likelihoods_are_those_of_an_answer_held_to_be_one_of_them(
    answers: list[tuple[int, ...]],
) -> None:
    eos = 4
    shares = {}
    for place in branchings(answers):
        values = logits(place.prefix, eos + 1)
        logprobs = values - np.logaddexp.reduce(values)
        wanted = place.params([eos]).logprob_token_ids
        shares[place.prefix] = place.shares([logprobs[token] for token in wanted])
    found = likelihoods(answers, shares)
    assert found == pytest.approx(by_enumeration(answers, eos))
    assert sum(found) == pytest.approx(1.0)


def test_one_forward_pass_is_enough_if_answers_begin_differently() -> None:
    assert [place.prefix for place in branchings([(1, 2, 3), (4, 2), (5,)])] == [()]


def softmax(*tokens: str) -> list[float]:
    """The stand-in finds a token the likelier the earlier it is in the alphabet."""
    weights = [math.exp(-ord(token)) for token in tokens]
    return [weight / sum(weights) for weight in weights]


needs_decisions = pytest.mark.skipif(
    not hasattr(openai.OpenAI, "decisions"), reason="this client knows no decisions"
)


@needs_decisions
def test_openais_client_gets_an_answer_of_each_kind_in_order() -> None:
    questions: list[Any] = [
        {"type": "predicate", "instructions": "It rains.", "name": "rain"},
        {
            "type": "choice",
            "instructions": "Which?",
            "choices": [{"value": "b"}, {"value": "a", "description": "the first"}],
        },
        {
            "type": "score",
            "instructions": "How much?",
            "name": "much",
            "levels": [{"label": "x"}, {"label": "y"}, {"label": "z"}],
        },
    ]
    with Server(StandIn()) as server, server.openai() as client:
        decision = client.decisions.create(model="standin", input="Wet.", questions=questions)
        prompts = [bytes(prompt).decode() for prompt, _ in server.engine.asked]
    predicate, choice, score = decision.answers
    yes, _ = softmax("Y", "N")
    assert (predicate.type, predicate.name) == ("predicate", "rain")
    assert predicate.probability == pytest.approx(yes)
    b, a = softmax("b", "a")
    assert (choice.type, choice.name, choice.choice) == ("choice", None, "a")
    assert choice.confidence == pytest.approx(a)
    assert [(p.value, p.probability) for p in choice.probabilities] == [
        ("b", pytest.approx(b)),
        ("a", pytest.approx(a)),
    ]
    _, y, z = softmax("x", "y", "z")
    assert score.score == pytest.approx(y + 2 * z)
    assert [(p.label, p.value) for p in score.probabilities] == [("x", 0), ("y", 1), ("z", 2)]
    assert decision.usage.output_tokens == 3
    assert decision.usage.input_tokens == sum(map(len, prompts))
    assert all(prompt.startswith("user: Wet.\n\n") for prompt in prompts)
    assert "- a: the first" in prompts[1]


def test_a_boolean_and_its_spelling_are_different_choices() -> None:
    choices = [{"value": value} for value in (True, "true", "no")]
    question = {"type": "choice", "instructions": "?", "choices": choices}
    with Server(StandIn()) as server:
        (answer,) = server.post(PATH, {"input": "x", "questions": [question]}).json["answers"]
    assert [p["value"] for p in answer["probabilities"]] == [True, "true", "no"]
    assert sum(p["probability"] for p in answer["probabilities"]) == pytest.approx(1.0)


def test_the_input_may_be_a_conversation_with_calls_and_json() -> None:
    turns = [
        *messages("Sum?"),
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": [{"type": "input_json", "data": {"a": [1]}}]},
    ]
    question = {"type": "predicate", "instructions": "It is right."}
    with Server(StandIn()) as server:
        assert server.post(PATH, {"input": turns, "questions": [question]}).status == 200
        prompt = bytes(server.engine.asked[-1][0]).decode()
    assert prompt.startswith(
        'user: Sum?\nassistant: 3\nuser: {"a": [1]}\n\nStatement: It is right.'
    )


@pytest.mark.parametrize(
    ("fields", "param", "fragment"),
    [
        ({}, "questions", "is required"),
        ({"questions": []}, "questions", "at least 1"),
        (
            {"questions": [{"type": "guess", "instructions": "x"}]},
            "questions[0]",
            "predicate, choice",
        ),
        ({"questions": [{"type": "predicate"}]}, "questions[0].instructions", "is required"),
        (
            {"questions": [{"type": "choice", "instructions": "x", "choices": [{"value": "a"}]}]},
            "questions[0].choices",
            "at least 2",
        ),
        (
            {
                "questions": [
                    {"type": "choice", "instructions": "x", "choices": [{"value": "a"}] * 2}
                ]
            },
            "questions[0]",
            "another value",
        ),
        (
            {"questions": [{"type": "predicate", "instructions": "x" * 3000}]},
            "questions[0]",
            "tokens",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    server: Server, fields: dict[str, Any], param: str, fragment: str
) -> None:
    refused = server.post(PATH, {"input": "x", **fields})
    assert (refused.status, refused.error["param"]) == (400, param), refused.body
    assert fragment in refused.error["message"]
    assert server.engine.asked == []
