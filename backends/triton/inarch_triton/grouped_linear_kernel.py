"""The kernel of grouped linear layers: each tile of rows finds out for itself whose rows they are.

The host knows how many rows there are, but not of which expert, so that a step can be captured.
"""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import triton
import triton.language as tl


@triton.jit
def find_rows(ends, tile, rows, experts, EXPERTS: tl.constexpr, ROWS: tl.constexpr):
    """The expert of a tile, its first row, and where that expert's rows end.

    Experts have as many tiles as they need, one after the other. Behind the last one there is none:
    an expert of EXPERTS or more.
    """
    each = tl.arange(0, EXPERTS)
    end = tl.load(ends + each, mask=each < experts, other=rows)
    start = tl.load(ends + each - 1, mask=(each > 0) & (each < experts), other=0)
    start = tl.where(each < experts, start, end)
    tiles = (end - start + ROWS - 1) // ROWS
    behind = tl.cumsum(tiles, 0)
    expert = tl.sum((behind <= tile).to(tl.int32), 0)
    first = start + (tile - behind + tiles) * ROWS
    own = each == expert
    return expert, tl.sum(tl.where(own, first, 0), 0), tl.sum(tl.where(own, end, 0), 0)


@triton.jit(do_not_specialize=["rows"])
def grouped_linear_kernel(
    x, weight, bias, out, ends, rows, experts, outputs, inputs,
    EXPERTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """out [M, N]: x [M, K], sorted by expert, @ weight[e] [N, K].T + bias[e] [N] of each row's expert.

    One program for ROWS rows of one expert and COLUMNS outputs. ends: int32 [E]. EXPERTS: E or the
    next power of two. EVEN: DEPTH divides K. A row's sums do not depend on the other rows.
    """
    expert, first, end = find_rows(ends, tl.program_id(1), rows, experts, EXPERTS, ROWS)
    if expert < EXPERTS:
        row = (first + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
        # Columns past the end repeat the last one and are not written.
        read = tl.minimum(column, outputs - 1).to(tl.int64)[None, :]
        own = weight + expert.to(tl.int64) * outputs * inputs
        acc = tl.zeros([ROWS, COLUMNS], tl.float32)
        for block in range(tl.cdiv(inputs, DEPTH)):
            k = block * DEPTH + tl.arange(0, DEPTH)
            x_at, w_at = x + row * inputs + k[None, :], own + read * inputs + k[:, None]
            if EVEN:
                left, right = tl.load(x_at, mask=row < end, other=0.0), tl.load(w_at)
            else:
                left = tl.load(x_at, mask=(row < end) & (k[None, :] < inputs), other=0.0)
                right = tl.load(w_at, mask=k[:, None] < inputs, other=0.0)
            acc = tl.dot(left, right, acc)
        if bias is not None:
            acc += tl.load(bias + expert * outputs + read).to(tl.float32)
        place = out + row * outputs + column[None, :]
        written = (row < end) & (column[None, :] < outputs)
        tl.store(place, acc.to(out.dtype.element_ty), mask=written)
