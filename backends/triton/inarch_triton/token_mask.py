"""Forbidding what a grammar does not allow, in place: reads a bit a token, writes where it is 0."""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import triton
import triton.language as tl
from torch import Tensor

from inarch_triton.options import FUSED

BLOCK = 4096  # tokens of a row that a program looks at
WARPS = 4


@triton.jit
def token_mask_kernel(
    logits, bitmask, rows, row_stride, words, VOCAB: tl.constexpr, BLOCK: tl.constexpr
):
    """One program for BLOCK tokens of row n of the bitmask, which is for row rows[n] of the logits."""
    n = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = token < VOCAB
    word = tl.load(bitmask + n * words + token // 32, mask=inside, other=-1)
    forbidden = ((word >> (token % 32)) & 1) == 0
    place = logits + tl.load(rows + n) * row_stride + token
    tl.store(place, tl.full((BLOCK,), float("-inf"), tl.float32), mask=inside & forbidden)


def apply_token_mask(logits: Tensor, bitmask: Tensor, rows: Tensor) -> Tensor:
    """Writes over `logits`."""
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    masked, words = bitmask.shape
    if masked:
        vocab = logits.shape[1]
        token_mask_kernel[(triton.cdiv(vocab, BLOCK), masked)](
            logits, bitmask, rows, logits.stride(0), words,
            VOCAB=vocab, BLOCK=BLOCK, num_warps=WARPS, **FUSED,
        )  # fmt: skip
    return logits
