"""Log-probabilities of the chosen and of the most likely tokens, with no [S, V] in between.

The survey knows the best token of every chunk of a row. The next best of all is the best of the
chunks' best; the chunk that it came from is then read again for its own next.
"""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import torch
import triton
import triton.language as tl
from torch import Tensor

from inarch_triton.options import FUSED
from inarch_triton.ordering import rank_token, ranked
from inarch_triton.survey import CHUNK, INFINITY, LEAST_RANK, LOG2_E, Survey, merged

WARPS = 4


@triton.jit(do_not_specialize=["top"])
def logprobs_kernel(
    logits, tokens, best, total, chosen, values, ids, row_stride, chunks, top,
    VOCAB: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """One program a row: chosen [S]; values, ids [S, top]."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    rank, peak, masses = merged(best, total, row, chunks, LOG2_E, CHUNKS)
    log_sum = tl.log(tl.sum(masses, 0))
    tl.store(chosen + row, tl.load(logits + tl.load(tokens + row)) - peak - log_sum)
    chunk = tl.arange(0, CHUNKS)
    ranks = tl.load(best + row * chunks + chunk, mask=chunk < chunks, other=LEAST_RANK)
    for place in range(top):
        rank = tl.max(ranks, 0)
        token = rank_token(rank)
        tl.store(ids + row * top + place, token.to(tl.int64))
        tl.store(values + row * top + place, tl.load(logits + token) - peak - log_sum)
        here = token // CHUNK
        mates = here * CHUNK + tl.arange(0, CHUNK)
        x = tl.load(logits + mates, mask=mates < VOCAB, other=-INFINITY)
        theirs = ranked(x, mates)
        left = (mates < VOCAB) & (theirs < rank)
        ranks = tl.where(chunk == here, tl.max(tl.where(left, theirs, LEAST_RANK), 0), ranks)


def logprobs(logits: Tensor, tokens: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    (rows, vocab), where = logits.shape, logits.device
    chosen = torch.empty(rows, dtype=torch.float32, device=where)
    values = torch.empty((rows, top), dtype=torch.float32, device=where)
    ids = torch.empty((rows, top), dtype=torch.int64, device=where)
    if rows:
        survey = Survey(logits, None, sums=True)
        logprobs_kernel[(rows,)](
            logits, tokens, survey.best, survey.total, chosen, values, ids,
            logits.stride(0), survey.chunks, top,
            VOCAB=vocab, CHUNK=CHUNK, CHUNKS=survey.block, num_warps=WARPS, **FUSED,
        )  # fmt: skip
    return chosen, values, ids
