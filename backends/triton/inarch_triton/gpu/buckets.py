"""The shapes that steps are padded to and captured at, and in which order they are worth it.

Steps with prompts are captured as far as the host, which takes 25 to 30 ms for the launches of an 8B
model, would keep the GPU waiting. Every graph takes memory and time, so there are as few as padding
allows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from inarch.hal.executor import StepShape
from inarch.hal.graphs import GraphShapes

# Decodes of few sequences cost what the weights cost, whatever the padding; of many, padding costs:
# from 64 sequences on at most a fifth is padding.
DECODES = (
    *(1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64),
    *(80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512),
)
# Tokens of steps with prompts: from 128 on at most a quarter is padding, on the average a tenth, and
# products go in steps of 64 or 128 anyway. What a prompt of 256, 512 or 1,024 tokens takes beside a few
# decodes has sizes of its own: products of 272, 528 and 1,040 tokens take 0.93, 0.93 and 0.91 of the
# time of the next size, 544 take 0.96; those of 448 took longer than those of 512 (an H200, 2026-11-22).
TOKENS = (
    *range(32, 256, 32), 256, 272, 320, 384, 512, 528, 544, *range(576, 768, 64), 768, 896, 1024, 1040,
    1152, *range(1280, 2048 + 1, 256),
)  # fmt: skip
# Their sequences matter to the logits and to the list of work alone, so few sizes do. Padding tokens
# need one sequence of their own beside 512 requests; products like multiples of 16.
SEQS = (64, 528)
# Of a graph, beside the pool. Measured on an H200 (2026-11-22): 0.87 MiB with 331 kernels.
GRAPH_BYTES = 2 << 20


def bucket(shape: StepShape) -> StepShape:
    """The captured shape that a step is padded to; what cannot be captured is not padded."""
    if shape.max_query == 1:
        return _decodes(shape.seqs) if shape.seqs <= DECODES[-1] else shape
    if shape.tokens > TOKENS[-1]:
        return shape
    tokens = TOKENS[bisect_left(TOKENS, shape.tokens)]
    seqs = shape.seqs + (tokens > shape.tokens)
    if seqs > SEQS[-1]:
        return shape
    return _prompts(tokens, SEQS[bisect_left(SEQS, seqs)])


def _decodes(seqs: int) -> StepShape:
    size = DECODES[bisect_left(DECODES, seqs)]
    return StepShape(size, size, 1, captured=True)


def _prompts(tokens: int, seqs: int) -> StepShape:
    return StepShape(tokens, min(seqs, tokens), tokens, captured=True)


@cache
def shapes(most: StepShape) -> Sequence[StepShape]:
    """The captured shapes of steps up to `most`: small steps and small batches first.

    Decodes of n sequences come right before prompts of 32 n tokens.
    """
    decodes = {_decodes(size) for below, size in pairwise((0, *DECODES)) if below < most.seqs}
    prompts = {
        _prompts(tokens, seqs)
        for fewer, tokens in pairwise((1, *TOKENS))
        for below, seqs in pairwise((0, *SEQS))
        if fewer < most.tokens and below < tokens and below <= most.seqs
    }
    return sorted(decodes | prompts, key=_rank)


def _rank(shape: StepShape) -> tuple[float, int]:
    if shape.max_query == 1:
        return 32 * shape.seqs, 1
    return shape.tokens * max(shape.seqs / SEQS[0], 1), shape.seqs


GRAPH_SHAPES = GraphShapes(bucket, shapes, GRAPH_BYTES)
