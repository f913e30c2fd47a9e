"""What is done to logits before sampling, in place: penalties and biases; and the counts behind them."""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import triton
import triton.language as tl
from torch import Tensor

from inarch_triton.options import FUSED

BLOCK = 2048  # tokens of a row that a program penalizes
PLACES = 128  # to which a program adds
WARPS = 4


@triton.jit
def penalize_kernel(
    logits, rows, prompt, counts, repetition, frequency, presence, row_stride,
    VOCAB: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program for BLOCK tokens of a row of logits, whose past is in row rows[s] of the tables."""
    s = tl.program_id(1).to(tl.int64)
    factor, each = tl.load(repetition + s), tl.load(frequency + s)
    once = tl.load(presence + s)
    if (factor != 1) | (each != 0) | (once != 0):
        token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        inside = token < VOCAB
        past = tl.load(rows + s) * VOCAB + token
        count = tl.load(counts + past, mask=inside, other=0)
        asked = tl.load(prompt + past, mask=inside, other=0)
        said = count > 0
        # Few tokens were seen: only their logits are read and written.
        seen = inside & (said | (asked != 0))
        place = logits + s * row_stride + token
        x = tl.load(place, mask=seen, other=0.0)
        x = tl.where(x > 0, x / factor, x * factor) - each * count.to(tl.float32)
        tl.store(place, x - tl.where(said, once, 0.0), mask=seen)


@triton.jit
def add_at_kernel(table, rows, tokens, values, row_stride, places, PLACES: tl.constexpr):
    """table[rows[i], tokens[i]] += values[i], or 1 without values; places may come twice."""
    i = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    inside = i < places
    row = tl.load(rows + i, mask=inside, other=0)
    place = table + row * row_stride + tl.load(tokens + i, mask=inside, other=0)
    value = tl.full((PLACES,), 1, table.dtype.element_ty)
    if values is not None:
        value = tl.load(values + i, mask=inside, other=0.0)
    tl.atomic_add(place, value, mask=inside, sem="relaxed")


def penalize(
    logits: Tensor,
    rows: Tensor,
    prompt: Tensor,
    counts: Tensor,
    repetition: Tensor,
    frequency: Tensor,
    presence: Tensor,
) -> Tensor:
    """Writes over `logits`."""
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    sequences, vocab = logits.shape
    if sequences:
        penalize_kernel[(triton.cdiv(vocab, BLOCK), sequences)](
            logits, rows, prompt, counts, repetition, frequency, presence, logits.stride(0),
            VOCAB=vocab, BLOCK=BLOCK, num_warps=WARPS, **FUSED,
        )  # fmt: skip
    return logits


def count_tokens(counts: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    return _add_at(counts, rows, tokens, None)


def add_bias(logits: Tensor, rows: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
    """Writes over `logits`."""
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    return _add_at(logits, rows, tokens, values)


def _add_at(table: Tensor, rows: Tensor, tokens: Tensor, values: Tensor | None) -> Tensor:
    if len(rows):
        add_at_kernel[(triton.cdiv(len(rows), PLACES),)](
            table, rows, tokens, values, table.stride(0), len(rows),
            PLACES=PLACES, num_warps=WARPS, **FUSED,
        )  # fmt: skip
    return table
