"""best_of: of several answers to each prompt those that the model itself finds likeliest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import msgspec

from inarch.sampling import SamplingParams
from inarch_server.answering.answers import Piece


def enlarge(params: SamplingParams, best_of: int) -> SamplingParams:
    """Ask for `best_of` answers, and for what they are ranked by."""
    ranked_by = params.logprobs if params.logprobs is not None else 0
    return msgspec.structs.replace(params, n=best_of, logprobs=ranked_by)


def best(pieces: Sequence[Piece], n: int) -> list[Piece]:
    """The `n` best whole answers to each prompt, best first, numbered anew as choices.

    By the mean log-probability of their tokens: by the sum short answers would always win.
    """
    chosen: list[Piece] = []
    for _, answers in groupby(pieces, lambda piece: piece.prompt):
        chosen += sorted(answers, key=_mean_logprob, reverse=True)[:n]
    for index, piece in enumerate(chosen):
        piece.index = index
    return chosen


def _mean_logprob(piece: Piece) -> float:
    if not piece.completion_tokens or piece.cumulative_logprob is None:  # aborted before the first
        return -math.inf
    return piece.cumulative_logprob / piece.completion_tokens
