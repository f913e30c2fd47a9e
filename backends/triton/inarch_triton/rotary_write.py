"""What lies between a projection and attention, in one launch: q and k are normed and rotated, K and V
are written to their pages.

q is rotated in place; what is rotated of k is in its page alone.
"""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inarch.hal.attention import Rotation
from inarch_triton.kv import copy_token
from inarch_triton.options import launch_options
from inarch_triton.rotary import WARPS, head_blocks, qk_norm_rope, rope, rope_constants, rotate

OURS = (rope, qk_norm_rope)  # the kernels that were chosen, if this one may do what they do


@triton.jit
def rope_write_kernel(
    q, k, v, q_weight, k_weight, positions, cos_sin, eps, slots, k_pages, v_pages,
    q_token, q_head, k_token, k_head, v_token, v_head,
    Q_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, ROTARY: tl.constexpr,
    BLOCK_HEADS: tl.constexpr, BLOCK_HALF: tl.constexpr, BLOCK_REST: tl.constexpr,
    VALUE_DIM: tl.constexpr, VALUE_BLOCK: tl.constexpr, INTERLEAVED: tl.constexpr,
    NORM: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program for a token and BLOCK_HEADS heads of q or of k, or all of v."""
    token = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    table = cos_sin + tl.load(positions + token) * ROTARY
    slot = tl.load(slots + token)
    of_q: tl.constexpr = (Q_HEADS + BLOCK_HEADS - 1) // BLOCK_HEADS
    of_k: tl.constexpr = (KV_HEADS + BLOCK_HEADS - 1) // BLOCK_HEADS
    if block < of_q:
        q += token * q_token
        rotate(
            q, q, q_weight, table, eps, block * BLOCK_HEADS, q_head, q_head,
            Q_HEADS, DIM, ROTARY, BLOCK_HEADS, BLOCK_HALF, BLOCK_REST, INTERLEAVED, NORM, False,
            PDL,
        )  # fmt: skip
    elif block < of_q + of_k:
        rotate(
            k + token * k_token, k_pages + slot * (KV_HEADS * DIM), k_weight, table, eps,
            (block - of_q) * BLOCK_HEADS, k_head, DIM,
            KV_HEADS, DIM, ROTARY, BLOCK_HEADS, BLOCK_HALF, BLOCK_REST, INTERLEAVED, NORM, True,
            PDL,
        )  # fmt: skip
    else:
        if PDL:
            gdc_wait()
            gdc_launch_dependents()
        copy_token(v + token * v_token, v_pages, slot, v_head, KV_HEADS, VALUE_DIM, VALUE_BLOCK)


def rope_write_constants(
    q_heads: int, kv_heads: int, dim: int, rotary: int, value_dim: int
) -> dict[str, int]:
    return {
        **rope_constants(q_heads, kv_heads, dim, rotary),
        "VALUE_DIM": value_dim,
        "VALUE_BLOCK": triton.next_power_of_2(kv_heads * value_dim),
    }


def rope_write(
    q: Tensor, k: Tensor, v: Tensor, rotation: Rotation, slots: Tensor, pages: tuple[Tensor, Tensor]
) -> Tensor:
    """q rotated; k rotated and v are at `slots` [T] of `pages`, K and V of a PagedKVStore's layer."""
    q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
    (tokens, q_heads, dim), (_, kv_heads, value_dim) = q.shape, v.shape
    rotary = rotation.cos_sin.shape[1]
    constants = rope_write_constants(q_heads, kv_heads, dim, rotary, value_dim)
    *weights, eps = rotation.norm or (None, None, 0.0)
    if tokens:
        rope_write_kernel[(tokens, head_blocks(q_heads, kv_heads, constants) + 1)](
            q, k, v, *weights, rotation.positions, rotation.cos_sin, eps, slots, *pages,
            *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
            **constants, INTERLEAVED=rotation.interleaved, NORM=rotation.norm is not None,
            num_warps=WARPS, **launch_options(q.device),
        )  # fmt: skip
    return q
