"""The kernel of linear layers for few tokens, whose time is that of reading the weight once.

Rows of the weight are the rows of the matrix product and tokens its columns, so that few tokens waste
little. Programs walk over jobs, each a tile of rows by a share of K, in one loop over all their
blocks: the loads of the next job are under way while this one ends.
"""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def prefetch(weight, tile, split, outputs, inputs, span, ROWS: tl.constexpr, BYTES: tl.constexpr,
             THREADS: tl.constexpr):  # fmt: skip
    """Ask the L2 cache for BYTES of each row of a job."""
    PARTS: tl.constexpr = THREADS // ROWS if THREADS > ROWS else 1
    line = tl.arange(0, ROWS * PARTS)
    row = tl.minimum(tile * ROWS + line // PARTS, outputs - 1).to(tl.int64)
    start = split * span + line % PARTS * (BYTES // 2 // PARTS)
    place = weight + row * inputs + tl.minimum(start, inputs - BYTES // 2 // PARTS)
    size = tl.full([ROWS * PARTS], BYTES // PARTS, tl.int32)
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
        "=r,l,r",
        [place, size],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


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
    """Put a job's sums aside; whoever is the last of its tile adds them all up, in their order."""
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


@triton.jit(do_not_specialize=["tokens", "blocks", "jobs"])
def linear_kernel(
    x, weight, tiles, bias, out, parts, counters, tokens, x_row, outputs, inputs, blocks, jobs,
    ROWS: tl.constexpr, DEPTH: tl.constexpr, TOKENS: tl.constexpr, SPLITS: tl.constexpr,
    EVEN: tl.constexpr, PREFETCH: tl.constexpr, THREADS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out [T, N] = x [T, K] @ weight [N, K].T + bias [N], with T <= TOKENS.

    jobs = tiles of ROWS outputs x SPLITS, each of `blocks` times DEPTH inputs; EVEN: they cover K
    exactly. tiles: the weight's tensor descriptor for tiles of ROWS x DEPTH, or None. parts:
    float32 [tiles, SPLITS, ROWS, TOKENS]. counters: int32 [tiles], zero before and after. A
    column's sum does not depend on the other columns.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    if PDL:
        if PREFETCH > 0:
            prefetch(weight, program // SPLITS, program % SPLITS, outputs, inputs, blocks * DEPTH,
                     ROWS, PREFETCH, THREADS)  # fmt: skip
        gdc_wait()
        gdc_launch_dependents()
    token = tl.arange(0, TOKENS)[None, :]
    row, depth = tl.arange(0, ROWS)[:, None], tl.arange(0, DEPTH)
    x_at = x + token * x_row
    acc = tl.zeros([ROWS, TOKENS], tl.float32)
    for step in range(tl.cdiv(jobs - program, programs) * blocks):
        job, block = program + step // blocks * programs, step % blocks
        tile, split = job // SPLITS, job % SPLITS
        k = (split * blocks + block) * DEPTH + depth
        # Rows past the end repeat the last one and are not written.
        feature = tl.minimum(tile * ROWS + row, outputs - 1).to(tl.int64)
        w_at = weight + feature * inputs + k[None, :]
        if tiles is not None:
            w = tiles.load([tile * ROWS, (split * blocks + block) * DEPTH])
        elif EVEN:
            w = tl.load(w_at)
        else:
            w = tl.load(w_at, mask=k[None, :] < inputs, other=0.0)
        if EVEN:
            columns = tl.load(x_at + k[:, None], mask=token < tokens, other=0.0)
        else:
            wanted = (token < tokens) & (k[:, None] < inputs)
            columns = tl.load(x_at + k[:, None], mask=wanted, other=0.0)
        acc = tl.dot(w, columns, acc)
        if SPLITS == 1:  # noqa: SIM102 (known when compiled, the other is not)
            if block == blocks - 1:
                write(acc, bias, out, tile, tokens, outputs, ROWS, TOKENS)
                acc = tl.zeros([ROWS, TOKENS], tl.float32)
    if SPLITS > 1:  # then each program has one job: no loop with a barrier is pipelined
        write_split(acc, bias, out, parts, counters, program // SPLITS, program % SPLITS, tokens,
                    outputs, ROWS, TOKENS, SPLITS)  # fmt: skip
