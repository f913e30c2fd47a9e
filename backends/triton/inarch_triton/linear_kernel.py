"""The kernel of linear layers for few tokens, whose time is that of reading the weight once.

Rows of the weight are the rows of the matrix product and tokens its columns, so that few tokens waste
little. A program has a tile of rows and a share of K.
"""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def write(acc, bias, out, tile, tokens, outputs, ROWS: tl.constexpr, TOKENS: tl.constexpr):
    feature, token = tile * ROWS + tl.arange(0, ROWS)[:, None], tl.arange(0, TOKENS)[None, :]
    if bias is not None:
        acc += tl.load(bias + feature, mask=feature < outputs, other=0.0).to(tl.float32)
    place = out + token.to(tl.int64) * outputs + feature
    tl.store(place, acc.to(out.dtype.element_ty), mask=(feature < outputs) & (token < tokens))


@triton.jit
def write_split(acc, bias, out, parts, counters, tile, split, tokens, outputs, ROWS: tl.constexpr,
                TOKENS: tl.constexpr, SPLITS: tl.constexpr):  # fmt: skip
    """Put a share's sums aside; whoever is the last of its tile adds them all up, in their order."""
    part = tl.arange(0, ROWS)[:, None] * TOKENS + tl.arange(0, TOKENS)[None, :]
    first = parts + tile.to(tl.int64) * (SPLITS * ROWS * TOKENS) + part
    tl.store(first + split * (ROWS * TOKENS), acc)
    tl.debug_barrier()  # the counter speaks for all threads of this program
    if tl.atomic_add(counters + tile, 1, sem="acq_rel") == SPLITS - 1:
        tl.debug_barrier()
        acc = tl.zeros([ROWS, TOKENS], tl.float32)
        for other in tl.static_range(SPLITS):
            acc += tl.load(first + other * (ROWS * TOKENS), cache_modifier=".cg")
        tl.store(counters + tile, 0)  # as the next launch wants it
        write(acc, bias, out, tile, tokens, outputs, ROWS, TOKENS)


@triton.jit(do_not_specialize=["tokens", "blocks"])
def linear_kernel(
    x, weight, bias, out, parts, counters, tokens, x_row, outputs, inputs, blocks,
    ROWS: tl.constexpr, DEPTH: tl.constexpr, TOKENS: tl.constexpr, SPLITS: tl.constexpr,
    EVEN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out [T, N] = x [T, K] @ weight [N, K].T + bias [N], with T <= TOKENS.

    One program for ROWS outputs and a share of K, which is `blocks` times DEPTH; EVEN: the SPLITS
    shares cover K exactly. parts: float32 [tiles, SPLITS, ROWS, TOKENS]. counters: int32 [tiles],
    zero before and after. A column's sum does not depend on the other columns.
    """
    tile, split = tl.program_id(0) // SPLITS, tl.program_id(0) % SPLITS
    begin = split * blocks * DEPTH
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    # Rows past the end repeat the last one and are not written.
    row = tl.minimum(tile * ROWS + tl.arange(0, ROWS), outputs - 1).to(tl.int64)[:, None]
    token = tl.arange(0, TOKENS)[None, :]
    acc = tl.zeros([ROWS, TOKENS], tl.float32)
    for block in range(blocks):
        k = begin + block * DEPTH + tl.arange(0, DEPTH)
        w_at, x_at = weight + row * inputs + k[None, :], x + token * x_row + k[:, None]
        if EVEN:
            w = tl.load(w_at)
            columns = tl.load(x_at, mask=token < tokens, other=0.0)
        else:
            w = tl.load(w_at, mask=k[None, :] < inputs, other=0.0)
            columns = tl.load(x_at, mask=(token < tokens) & (k[:, None] < inputs), other=0.0)
        acc = tl.dot(w, columns, acc)
    if SPLITS == 1:
        write(acc, bias, out, tile, tokens, outputs, ROWS, TOKENS)
    else:
        write_split(
            acc, bias, out, parts, counters, tile, split, tokens, outputs, ROWS, TOKENS, SPLITS
        )
