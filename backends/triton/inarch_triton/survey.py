"""One look at the logits, chunk by chunk: what sampling, greedy decoding and logprobs all start from.

A row is read by as many programs as it has chunks, so that one row alone fills the device. Chunks
have one size whatever the batch: sums, and so answers, do not depend on a row's neighbours.
"""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import torch
import triton
import triton.language as tl
from torch import Tensor

from inarch_triton.options import FUSED, LOG2_E
from inarch_triton.ordering import LOWEST, rank_key, rank_token, ranked, unordered

CHUNK = 2048  # tokens
WARPS = 4
LEAST_RANK = tl.constexpr(-(2**63))
INFINITY = tl.constexpr(float("inf"))


@triton.jit
def exponent_scale(temperature):
    """What a difference of logits is multiplied with before exp2; greedy rows do as with 1."""
    return 1.0 / tl.where(temperature > 0, temperature, 1.0) * LOG2_E


@triton.jit
def finite_or_zero(x):
    return tl.where(tl.abs(x) < INFINITY, x, 0.0)


@triton.jit
def survey_kernel(
    logits, temperature, best, total, least, row_stride, chunks,
    VOCAB: tl.constexpr, CHUNK: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """Of a chunk of a row: the rank of its best token; with SUMS the sum of exp((x - max) / T) and
    the lowest x above -inf. best, total, least are [S, chunks]; without temperature T is 1."""
    chunk, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    token = chunk * CHUNK + tl.arange(0, CHUNK)
    inside = token < VOCAB
    x = tl.load(logits + row * row_stride + token, mask=inside, other=-INFINITY)
    rank = tl.max(tl.where(inside, ranked(x, token), LEAST_RANK), 0)
    place = row * chunks + chunk
    tl.store(best + place, rank)
    if SUMS:
        scale = LOG2_E
        if temperature is not None:
            scale = exponent_scale(tl.load(temperature + row))
        peak = finite_or_zero(unordered(rank_key(rank)))
        tl.store(total + place, tl.sum(tl.exp2((x - peak) * scale), 0))
        tl.store(least + place, tl.min(tl.where(x > -INFINITY, x, INFINITY), 0))


@triton.jit
def merged(best, total, row, chunks, scale, CHUNKS: tl.constexpr):
    """The row's best rank, its highest logit (0 if that is not finite) and, of each chunk and
    relative to it, the sum of exponentials."""
    chunk = tl.arange(0, CHUNKS)
    place = row * chunks + chunk
    ranks = tl.load(best + place, mask=chunk < chunks, other=LEAST_RANK)
    sums = tl.load(total + place, mask=chunk < chunks, other=0.0)
    rank = tl.max(ranks, 0)
    peak = finite_or_zero(unordered(rank_key(rank)))
    # A chunk of -inf alone was summed relative to 0, and to nothing.
    peaks = finite_or_zero(unordered(tl.maximum(rank_key(ranks), LOWEST)))
    masses = tl.where(sums > 0, sums * tl.exp2((tl.minimum(peaks, peak) - peak) * scale), 0.0)
    return rank, peak, masses


@triton.jit
def greedy_kernel(best, tokens, chunks, CHUNKS: tl.constexpr):
    """One program a row: the token of the highest rank among its chunks."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.arange(0, CHUNKS)
    ranks = tl.load(best + row * chunks + chunk, mask=chunk < chunks, other=LEAST_RANK)
    tl.store(tokens + row, rank_token(tl.max(ranks, 0)).to(tl.int64))


class Survey:
    """The outcome for a batch of rows: best, and with sums total and least, each [S, chunks]."""

    def __init__(self, logits: Tensor, temperature: Tensor | None, *, sums: bool) -> None:
        rows, vocab = logits.shape
        self.chunks = triton.cdiv(vocab, CHUNK)
        shape, where = (rows, self.chunks), logits.device
        self.best = torch.empty(shape, dtype=torch.int64, device=where)
        self.total = torch.empty(shape, dtype=torch.float32, device=where) if sums else None
        self.least = torch.empty(shape, dtype=torch.float32, device=where) if sums else None
        if rows:
            survey_kernel[(self.chunks, rows)](
                logits, temperature, self.best, self.total, self.least,
                logits.stride(0), self.chunks,
                VOCAB=vocab, CHUNK=CHUNK, SUMS=sums, num_warps=WARPS, **FUSED,
            )  # fmt: skip

    @property
    def block(self) -> int:
        """The chunks of a row as a power of two."""
        return triton.next_power_of_2(self.chunks)
