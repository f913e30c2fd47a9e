"""Rotary embedding of q and k in one launch and in place, with or without the norm of heads before it.

In place: q and k are usually parts of one projection, and are dead afterwards.
"""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inarch_triton.kv import narrowed
from inarch_triton.norm import scaled
from inarch_triton.options import FUSED

BLOCK_ELEMENTS = 2048  # of one program: as many heads of a token as fit
WARPS = 4


@triton.jit
def rotate(
    x, out, weight, cos_sin, eps, first, x_head, out_head,
    HEADS: tl.constexpr, DIM: tl.constexpr, ROTARY: tl.constexpr, BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr, BLOCK_REST: tl.constexpr, INTERLEAVED: tl.constexpr,
    NORM: tl.constexpr, COPY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Heads [first, first + BLOCK_HEADS) of the token whose row of cosines and sines is `cos_sin`.

    COPY: out is not x, so that what is not rotated has to get there too.
    """
    head = first + tl.arange(0, BLOCK_HEADS)[:, None]
    pair = tl.arange(0, BLOCK_HALF)[None, :]
    x += head.to(tl.int64) * x_head
    out += head.to(tl.int64) * out_head
    inside = (head < HEADS) & (pair < ROTARY // 2)
    left = 2 * pair if INTERLEAVED else pair
    right = 2 * pair + 1 if INTERLEAVED else pair + ROTARY // 2
    rest = ROTARY + tl.arange(0, BLOCK_REST)[None, :]
    beyond = (head < HEADS) & (rest < DIM)
    dtype: tl.constexpr = x.dtype.element_ty
    stored: tl.constexpr = out.dtype.element_ty
    known = pair < ROTARY // 2
    cos = tl.load(cos_sin + pair, mask=known, other=0.0)
    sin = tl.load(cos_sin + ROTARY // 2 + pair, mask=known, other=0.0)
    if NORM:
        left_gain = tl.load(weight + left, mask=known, other=0.0)
        right_gain = tl.load(weight + right, mask=known, other=0.0)
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    a = tl.load(x + left, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(x + right, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        squares = tl.sum(a * a, 1) + tl.sum(b * b, 1)
        if DIM > ROTARY:
            c = tl.load(x + rest, mask=beyond, other=0.0).to(tl.float32)
            squares += tl.sum(c * c, 1)
        scale = tl.rsqrt(squares / DIM + eps)[:, None]
        a = scaled(a, left_gain, scale, dtype).to(tl.float32)
        b = scaled(b, right_gain, scale, dtype).to(tl.float32)
        if DIM > ROTARY:
            gain = tl.load(weight + rest, mask=rest < DIM, other=0.0)
            tl.store(out + rest, narrowed(scaled(c, gain, scale, dtype), stored), mask=beyond)
    elif COPY and DIM > ROTARY:
        tl.store(out + rest, narrowed(tl.load(x + rest, mask=beyond), stored), mask=beyond)
    tl.store(out + left, narrowed((a * cos - b * sin).to(dtype), stored), mask=inside)
    tl.store(out + right, narrowed((b * cos + a * sin).to(dtype), stored), mask=inside)


@triton.jit
def rope_kernel(
    q, k, q_weight, k_weight, positions, cos_sin, eps, q_token, q_head, k_token, k_head,
    Q_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, ROTARY: tl.constexpr,
    BLOCK_HEADS: tl.constexpr, BLOCK_HALF: tl.constexpr, BLOCK_REST: tl.constexpr,
    INTERLEAVED: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """One program for a token and BLOCK_HEADS heads of q or of k."""
    token = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    table = cos_sin + tl.load(positions + token) * ROTARY
    of_q: tl.constexpr = (Q_HEADS + BLOCK_HEADS - 1) // BLOCK_HEADS
    if block < of_q:
        q += token * q_token
        rotate(
            q, q, q_weight, table, eps, block * BLOCK_HEADS, q_head, q_head,
            Q_HEADS, DIM, ROTARY, BLOCK_HEADS, BLOCK_HALF, BLOCK_REST, INTERLEAVED, NORM, False,
            False,
        )  # fmt: skip
    else:
        k += token * k_token
        rotate(
            k, k, k_weight, table, eps, (block - of_q) * BLOCK_HEADS, k_head, k_head,
            KV_HEADS, DIM, ROTARY, BLOCK_HEADS, BLOCK_HALF, BLOCK_REST, INTERLEAVED, NORM, False,
            False,
        )  # fmt: skip


def rope_constants(q_heads: int, kv_heads: int, dim: int, rotary: int) -> dict[str, int]:
    half = triton.next_power_of_2(rotary // 2)
    return {
        "Q_HEADS": q_heads,
        "KV_HEADS": kv_heads,
        "DIM": dim,
        "ROTARY": rotary,
        "BLOCK_HEADS": min(
            triton.next_power_of_2(max(q_heads, kv_heads)), max(1, BLOCK_ELEMENTS // (2 * half))
        ),
        "BLOCK_HALF": half,
        "BLOCK_REST": triton.next_power_of_2(max(dim - rotary, 1)),
    }


def head_blocks(q_heads: int, kv_heads: int, constants: dict[str, int]) -> int:
    """Programs for the heads of one token."""
    return sum(triton.cdiv(heads, constants["BLOCK_HEADS"]) for heads in (q_heads, kv_heads))


def rope(
    q: Tensor, k: Tensor, positions: Tensor, cos_sin: Tensor, *, interleaved: bool = False
) -> tuple[Tensor, Tensor]:
    return _launch(q, k, None, 0.0, positions, cos_sin, interleaved)


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    eps: float,
    positions: Tensor,
    cos_sin: Tensor,
    *,
    interleaved: bool = False,
) -> tuple[Tensor, Tensor]:
    return _launch(q, k, (q_weight, k_weight), eps, positions, cos_sin, interleaved)


def _launch(
    q: Tensor,
    k: Tensor,
    weights: tuple[Tensor, Tensor] | None,
    eps: float,
    positions: Tensor,
    cos_sin: Tensor,
    interleaved: bool,
) -> tuple[Tensor, Tensor]:
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    (tokens, q_heads, dim), kv_heads = q.shape, k.shape[1]
    constants = rope_constants(q_heads, kv_heads, dim, cos_sin.shape[1])
    if tokens:
        rope_kernel[(tokens, head_blocks(q_heads, kv_heads, constants))](
            q, k, *(weights or (None, None)), positions, cos_sin, eps,
            *q.stride()[:2], *k.stride()[:2],
            **constants, INTERLEAVED=interleaved, NORM=weights is not None, num_warps=WARPS, **FUSED,
        )  # fmt: skip
    return q, k
