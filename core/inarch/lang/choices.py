"""How `select` decides among choices, given the log-probabilities of their tokens.

The three methods are SGLang's (https://docs.sglang.ai, "Choices Methods in SGLang").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Scored:
    """A choice as the model sees it behind the prompt.

    token_texts: of its tokens. logprobs: natural, of them one after the other. unconditional: the
    same without the prompt, behind nothing but what starts a text; only if the method asks for it.
    """

    text: str
    tokens: Sequence[int]
    token_texts: Sequence[str]
    logprobs: Sequence[float]
    unconditional: Sequence[float] = ()


@dataclass(frozen=True)
class Decision:
    """The index of the chosen one, and what was found of each."""

    index: int
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ChoicesMethod:
    """decide: what picks one. needs_unconditional: whether it looks at that too."""

    name: str
    decide: Callable[[Sequence[Scored]], Decision]
    needs_unconditional: bool = False

    def __call__(self, choices: Sequence[Scored]) -> Decision:
        return self.decide(choices)


def _by_mean(choices: Sequence[Scored]) -> Decision:
    means = [float(np.mean(choice.logprobs)) for choice in choices]
    return Decision(int(np.argmax(means)), {"normalized_prompt_logprobs": means})


def _greedily(choices: Sequence[Scored]) -> Decision:
    """Token by token, the choices that go on with the likeliest token stay.

    A choice that has ended goes on with its own mean: else the shortest would always drop out.
    """
    longest = max(len(choice.logprobs) for choice in choices)
    rows = np.array(
        [
            [
                *choice.logprobs,
                *[float(np.mean(choice.logprobs))] * (longest - len(choice.logprobs)),
            ]
            for choice in choices
        ]
    )
    left = np.arange(len(choices))
    for column in range(longest):
        best = rows[left, column].max()
        left = left[rows[left, column] >= best - 1e-9]
        if len(left) == 1:
            break
    return Decision(int(left[0]), {"greedy_logprob_matrix": rows.tolist()})


def _by_gain(choices: Sequence[Scored]) -> Decision:
    """By how much likelier the prompt makes a choice, a token."""
    gains = [
        float(np.mean(np.subtract(choice.logprobs, choice.unconditional))) for choice in choices
    ]
    return Decision(int(np.argmax(gains)), {"normalized_unconditional_prompt_logprobs": gains})


token_length_normalized = ChoicesMethod("token_length_normalized", _by_mean)
greedy_token_selection = ChoicesMethod("greedy_token_selection", _greedily)
unconditional_likelihood_normalized = ChoicesMethod(
    "unconditional_likelihood_normalized", _by_gain, needs_unconditional=True
)
