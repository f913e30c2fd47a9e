"""How likely each of some answers is, if the answer is surely one of them.

The answers are a tree of tokens. Where it branches the model says how likely each branch is; the
shares of the branches that are there are made to sum to one, as a sampler does that is held to a
grammar, and the likelihood of an answer is the product along its way. One forward pass for each
place where the tree branches: a single one if all answers begin with different tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inarch.sampling import SamplingParams

Tokens = tuple[int, ...]
END = -1  # in place of a token: the answer ends here


@dataclass(frozen=True)
class Branching:
    """A place in the tree where it is open how the answer goes on."""

    prefix: Tokens
    branches: tuple[int, ...]  # tokens, or END

    def params(self, eos: Sequence[int]) -> SamplingParams:
        """What to ask of the model behind `prefix`; `eos`: the tokens that end an answer."""
        tokens = [branch for branch in self.branches if branch != END]
        wanted = (*tokens, *eos) if END in self.branches else tuple(tokens)
        return SamplingParams(
            max_tokens=1, temperature=0.0, ignore_eos=True, logprobs=0, logprob_token_ids=wanted
        )

    def shares(self, logprobs: Sequence[float]) -> dict[int, float]:
        """The share of each branch. `logprobs`: of the tokens in `params`, in their order."""
        tokens = [branch for branch in self.branches if branch != END]
        logs = [float(value) for value in logprobs[: len(tokens)]]
        if END in self.branches:
            tokens.append(END)
            logs.append(float(np.logaddexp.reduce(logprobs[len(tokens) - 1 :])))
        shares = np.exp(np.array(logs) - np.logaddexp.reduce(logs))
        return dict(zip(tokens, shares.tolist(), strict=True))


def branchings(answers: Sequence[Tokens]) -> list[Branching]:
    """Where the tree of `answers` (all different) branches, from the root on."""
    following: dict[Tokens, dict[int, None]] = {}
    for answer in answers:
        for prefix, branch in _steps(answer):
            following.setdefault(prefix, {})[branch] = None
    return [Branching(p, tuple(branches)) for p, branches in following.items() if len(branches) > 1]


def likelihoods(
    answers: Sequence[Tokens], shares: Mapping[Tokens, Mapping[int, float]]
) -> list[float]:
    """Of each answer; `shares`: of the branches at each branching, by its prefix."""
    found = []
    for answer in answers:
        steps = [shares[prefix][branch] for prefix, branch in _steps(answer) if prefix in shares]
        found.append(float(np.prod(steps)))
    return found


def _steps(answer: Tokens) -> Iterator[tuple[Tokens, int]]:
    for i, token in enumerate(answer):
        yield answer[:i], token
    yield answer, END
