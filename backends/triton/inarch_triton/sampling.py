"""Greedy decoding, sampling and log-probabilities without sorting the vocabulary.

Sums of probabilities are float32: a token that is cut or drawn otherwise than by the reference lies
within 1e-6 of the bound (top_p, min_p, the uniform number). Order and ties are those of the logits
themselves; two that differ, but whose probabilities round to the same, are no tie here.
"""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import torch
from torch import Tensor

from inarch_triton.options import FUSED
from inarch_triton.sampling_kernel import cut_kernel, draw_kernel, gather_kernel, narrow_kernel
from inarch_triton.survey import CHUNK, Survey, greedy_kernel

EDGES = 8  # of a level of the search: 7 * 7 brackets
BLOCK = 2048  # tokens that a step of the bisection looks at
PART_ELEMENTS = 4096  # tokens times chunks, when found tokens are added up by chunk
GREEDY_WARPS = 1
NARROW_WARPS = 2  # sums over few lanes, of many numbers each
GATHER_WARPS = 4
ROW_WARPS = 8


def greedy(logits: Tensor) -> Tensor:
    logits = _rows(logits)
    survey = Survey(logits, None, sums=False)
    tokens = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    if len(logits):
        greedy_kernel[(len(logits),)](
            survey.best, tokens, survey.chunks, CHUNKS=survey.block, num_warps=GREEDY_WARPS, **FUSED
        )
    return tokens


def sample(
    logits: Tensor,
    temperature: Tensor,
    uniform: Tensor,
    top_k: Tensor | None = None,
    top_p: Tensor | None = None,
    min_p: Tensor | None = None,
) -> Tensor:
    logits = _rows(logits)
    rows, vocab = logits.shape
    drawn = torch.empty(rows, dtype=torch.int64, device=logits.device)
    if rows == 0:
        return drawn
    survey = Survey(logits, temperature, sums=True)
    sizes = {"VOCAB": vocab, "CHUNK": CHUNK, "CHUNKS": survey.block}
    if top_k is not None or top_p is not None or min_p is not None:
        _draw_filtered(logits, temperature, uniform, (top_k, top_p, min_p), survey, drawn, sizes)
    else:
        draw_kernel[(rows,)](
            logits, temperature, uniform, survey.best, survey.total, drawn,
            logits.stride(0), survey.chunks, **sizes, num_warps=ROW_WARPS, **FUSED,
        )  # fmt: skip
    return drawn


def _draw_filtered(
    logits: Tensor,
    temperature: Tensor,
    uniform: Tensor,
    given: tuple[Tensor | None, Tensor | None, Tensor | None],
    survey: Survey,
    drawn: Tensor,
    sizes: dict[str, int],
) -> None:
    (rows, vocab), chunks = logits.shape, survey.chunks

    def empty(dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    counts = empty(torch.int32, 2, rows, chunks, EDGES)
    masses = empty(torch.float32, 2, rows, chunks, EDGES)
    edges, bounds = empty(torch.int32, 2, rows, EDGES), empty(torch.int32, rows, 2)
    facts = empty(torch.float32, rows, 2)
    found, many = empty(torch.int32, rows, vocab), empty(torch.int32, rows)
    count_above, mass_above = empty(torch.int32, rows, chunks), empty(torch.float32, rows, chunks)
    in_use = sum(1 << bit for bit, values in enumerate(given) if values is not None)
    unread = (bounds, temperature, temperature)  # of the right types: nothing is read from them
    filters = [
        other if values is None else values for values, other in zip(given, unread, strict=True)
    ]
    filters.append(in_use)
    strides = logits.stride(0), chunks
    for level in range(2):
        narrow_kernel[(chunks, rows)](
            logits, temperature, *filters, survey.best, survey.total, survey.least, edges, counts,
            masses, facts, *strides,
            LEVEL=level, EDGES=EDGES, **sizes, num_warps=NARROW_WARPS, **FUSED,
        )  # fmt: skip
    gather_kernel[(chunks, rows)](
        logits, temperature, *filters, survey.best, edges, counts, masses, facts, bounds, found,
        many, count_above, mass_above, *strides,
        EDGES=EDGES, **sizes, num_warps=GATHER_WARPS, **FUSED,
    )  # fmt: skip
    cut_kernel[(rows,)](
        logits, temperature, uniform, *filters, survey.best, facts, bounds, found, many,
        count_above, mass_above, drawn, *strides,
        BLOCK=BLOCK, PART=part_tokens(survey.block), **sizes, num_warps=ROW_WARPS, **FUSED,
    )  # fmt: skip


def part_tokens(chunks: int) -> int:
    return max(16, PART_ELEMENTS // chunks)


def _rows(logits: Tensor) -> Tensor:
    return logits if logits.stride(-1) == 1 else logits.contiguous()
