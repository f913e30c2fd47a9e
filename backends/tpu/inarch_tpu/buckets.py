"""The shapes that steps are padded to: few, since each is a program that takes seconds to compile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from inarch.hal.executor import StepShape

LEAST = 16  # tokens of a step with prompts
# Sequences of a step with prompts: they matter to the logits alone.
SEQS = (8, 64, 512)


def bucket(shape: StepShape) -> StepShape:
    """Decodes go to a power of two; others to one of tokens, and to few numbers of sequences."""
    if shape.max_query == 1:
        seqs = _power(shape.seqs)
        return StepShape(seqs, seqs, 1, captured=True)
    tokens = max(LEAST, _power(shape.tokens))
    return _prompts(tokens, shape.seqs + (tokens > shape.tokens))


def _prompts(tokens: int, seqs: int) -> StepShape:
    found = next((size for size in SEQS if size >= seqs), _power(seqs))
    return StepShape(tokens, found, tokens, captured=True)


def _power(count: int) -> int:
    return 1 << (count - 1).bit_length()


@cache
def shapes(most: StepShape) -> Sequence[StepShape]:
    """The buckets of steps up to `most`: small ones first, decodes before prompts."""
    decodes = [StepShape(n, n, 1, captured=True) for n in _powers(1, most.seqs)]
    prompts = {
        _prompts(tokens, seqs)
        for tokens in _powers(LEAST, most.tokens)
        for seqs in range(1, min(most.seqs + 1, tokens) + 1)  # one more is padding
    }
    return sorted({*decodes, *prompts}, key=lambda s: (s.tokens * s.seqs, s.max_query))


def _powers(first: int, last: int) -> list[int]:
    return [1 << i for i in range(first.bit_length() - 1, (last - 1).bit_length() + 1)]
