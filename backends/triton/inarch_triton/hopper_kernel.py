"""The attention of long prompts on Hopper: warps that load pages, and warpgroups that compute.

The algorithm is FlashAttention-3 (Shah et al., 2024, arXiv:2407.08608): one warp fills a ring of
pages with the copy engine, and each of the warpgroups attends with 64 rows of the tile, starting
its next scores before it weighs the values of the last, so that tensor cores and exponentials
work at the same time. It is written in Gluon because Triton's own pipeliner runs them in turn.
"""

# No deferred annotations here: Gluon reads `gl.constexpr` as an object, not as a string.
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

LN_2 = gl.constexpr(0.6931471805599453)
ITEM = gl.constexpr(8)  # fields of an item: see work.py
ROWS = gl.constexpr(64)  # of a warpgroup: what one of its matrix products takes
BOX = gl.constexpr(64)  # keys and features that the copy engine brings at once: 128 bytes of each key

# Renamed after Triton 3.6.
_copy = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
_view = getattr(gl.shared_memory_descriptor, "reinterpret", None) or (
    gl.shared_memory_descriptor._reinterpret
)


@gluon.jit
def _load_block(
    pages, table, at, end, head, ring, ready, free, turn,
    DIM: gl.constexpr, KEYS: gl.constexpr, PAGE: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Bring the keys [at, at + KEYS) of one head, from pages anywhere, into a buffer of the ring."""
    BOXES: gl.constexpr = KEYS // BOX
    stage = turn % STAGES
    first = gl.load(table + at // PAGE) * PAGE + at % PAGE
    second = first
    if BOXES == 2:
        later = gl.minimum(at + BOX, end - 1) // BOX * BOX
        second = gl.load(table + later // PAGE) * PAGE + later % PAGE
    mbarrier.wait(free.index(stage), (turn // STAGES & 1) ^ 1)
    mbarrier.expect(ready.index(stage), KEYS * DIM * 2)
    for column in gl.static_range(DIM // BOX):
        place = (stage * (DIM // BOX) + column) * BOXES
        _copy(pages, [first, head * DIM + column * BOX], ready.index(stage), ring.index(place))
        if BOXES == 2:
            _copy(
                pages, [second, head * DIM + column * BOX], ready.index(stage), ring.index(place + 1)
            )


@gluon.jit
def _produce(
    k_pages, v_pages, table, begin, end, head, k_ring, v_ring, k_ready, k_free, v_ready, v_free,
    DIM: gl.constexpr, KEYS: gl.constexpr, PAGE: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    blocks = (end - begin + KEYS - 1) // KEYS
    last = begin + (blocks - 1) * KEYS
    _load_block(
        k_pages, table, last, end, head, k_ring, k_ready, k_free, 0, DIM, KEYS, PAGE, STAGES
    )
    for turn in range(1, blocks):
        at = last - turn * KEYS
        _load_block(
            k_pages, table, at, end, head, k_ring, k_ready, k_free, turn, DIM, KEYS, PAGE, STAGES
        )
        _load_block(
            v_pages, table, at + KEYS, end, head, v_ring, v_ready, v_free, turn - 1,
            DIM, KEYS, PAGE, STAGES,
        )  # fmt: skip
    _load_block(
        v_pages, table, begin, end, head, v_ring, v_ready, v_free, blocks - 1,
        DIM, KEYS, PAGE, STAGES,
    )  # fmt: skip


@gluon.jit
def _enter(turns, part: gl.constexpr, turn, PINGPONG: gl.constexpr):
    """Wait until it is this warpgroup's turn to start matrix products."""
    if PINGPONG == 1:
        mbarrier.wait(turns.index(part), turn & 1)
    if PINGPONG == 2:
        if part == 0:
            gl.inline_asm_elementwise(
                "{ bar.sync 12, 256; mov.u32 $0, $1; }", "=r,r", [turn], gl.int32, False, 1
            )
        else:
            gl.inline_asm_elementwise(
                "{ bar.sync 13, 256; mov.u32 $0, $1; }", "=r,r", [turn], gl.int32, False, 1
            )


@gluon.jit
def _leave(turns, part: gl.constexpr, turn, PINGPONG: gl.constexpr):
    if PINGPONG == 1:
        mbarrier.arrive(turns.index(1 - part), count=1)
    if PINGPONG == 2:
        if part == 0:
            gl.inline_asm_elementwise(
                "{ bar.arrive 13, 256; mov.u32 $0, $1; }", "=r,r", [turn], gl.int32, False, 1
            )
        else:
            gl.inline_asm_elementwise(
                "{ bar.arrive 12, 256; mov.u32 $0, $1; }", "=r,r", [turn], gl.int32, False, 1
            )


@gluon.jit
def _weigh(scores, highest, total, at, limit, scale, KEYS: gl.constexpr, MASKED: gl.constexpr):
    """The online softmax of one block: its weights, and how much what came before counts still."""
    S: gl.constexpr = scores.type.layout
    if MASKED:
        keys = at + gl.arange(0, KEYS, gl.SliceLayout(0, S))
        scores = gl.where(keys[None, :] <= limit[:, None], scores, float("-inf"))
    new = gl.maximum(highest, gl.max(scores, 1) * scale)
    shift = new
    if MASKED:
        shift = gl.where(new == float("-inf"), 0.0, new)
    weights = gl.exp2(scores * scale - shift[:, None])
    decay = gl.exp2(highest - shift)
    return weights, decay, new, total * decay + gl.sum(weights, 1)


@gluon.jit
def _step(
    acc, total, highest, weights, q, k_ring, v_ring, k_ready, k_free, v_ready, v_free, turns,
    turn, at, limit, scale, pin, part: gl.constexpr,
    KEYS: gl.constexpr, STAGES: gl.constexpr, PINGPONG: gl.constexpr, MASKED: gl.constexpr,
    PIN: gl.constexpr,
):  # fmt: skip
    """Scores of this block while the values of the block before it are weighed."""
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    O: gl.constexpr = acc.type.layout  # noqa: E741
    now, before = turn % STAGES, (turn - 1) % STAGES
    mbarrier.wait(k_ready.index(now), turn // STAGES & 1)
    _enter(turns, part, turn - 1, PINGPONG)
    empty = gl.zeros([ROWS, KEYS], gl.float32, S)
    scores = warpgroup_mma(
        q, k_ring.index(now).permute((1, 0)), empty, use_acc=False, is_async=True
    )
    mbarrier.wait(v_ready.index(before), (turn - 1) // STAGES & 1)
    acc = warpgroup_mma(weights, v_ring.index(before), acc, is_async=True)
    _leave(turns, part, turn, PINGPONG)
    scores = warpgroup_mma_wait(1, deps=[scores])
    mbarrier.arrive(k_free.index(now), count=1)
    new_weights, decay, highest, total = _weigh(
        scores, highest, total, at, limit, scale, KEYS, MASKED
    )
    if PIN == 1:
        pin.store(total)
    acc, weights = warpgroup_mma_wait(0, deps=[acc, weights])
    mbarrier.arrive(v_free.index(before), count=1)
    acc = acc * gl.convert_layout(decay, gl.SliceLayout(1, O))[:, None]
    weights = gl.convert_layout(new_weights.to(v_ring.dtype), weights.type.layout)
    return acc, total, highest, weights


@gluon.jit
def _consume(
    q, out, lse, parts, part_lse, q_token, q_head, head, first, tokens, prefix, begin, end, slot,
    scale, q_tile, k_ring, v_ring, k_ready, k_free, v_ready, v_free, turns, pins,
    part: gl.constexpr, HEADS: gl.constexpr, GROUP: gl.constexpr, DIM: gl.constexpr,
    KEYS: gl.constexpr, STAGES: gl.constexpr, GROUPS: gl.constexpr, PINGPONG: gl.constexpr,
    Q_REGISTERS: gl.constexpr, LSE: gl.constexpr, PIN: gl.constexpr,
):  # fmt: skip
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    O: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DIM, 16])  # noqa: E741
    A: gl.constexpr = gl.DotOperandLayout(0, O, 2)
    B: gl.constexpr = gl.BlockedLayout([1, 8], [256 // DIM, DIM // 8], [4, 1], [1, 0])

    rows = part * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, B))
    dims = gl.arange(0, DIM, gl.SliceLayout(0, B))
    own = rows < tokens * GROUP
    token = (first + rows // GROUP).to(gl.int64)
    heads = head * GROUP + rows % GROUP
    places = q + (token * q_token + heads * q_head)[:, None] + dims[None, :]
    mine = q_tile.index(part)
    mine.store(gl.load(places, mask=own[:, None], other=0.0))
    fence_async_shared()
    if Q_REGISTERS:
        queries = mine.load(A)
    else:
        queries = mine

    blocks = (end - begin + KEYS - 1) // KEYS
    last = begin + (blocks - 1) * KEYS
    # Keys before `far` are behind no query of the tile. The walk begins at the last block.
    far = begin + gl.maximum(gl.minimum(end, prefix + 1) - begin, 0) // KEYS * KEYS
    masked = gl.maximum((end - far + KEYS - 1) // KEYS, 1)
    row = part * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, S))
    limit = gl.minimum(prefix + row // GROUP, end - 1)

    if PINGPONG and part == GROUPS - 1:
        _leave(turns, part, 0, PINGPONG)
    mbarrier.wait(k_ready.index(0), 0)
    empty = gl.zeros([ROWS, KEYS], gl.float32, S)
    scores = warpgroup_mma(queries, k_ring.index(0).permute((1, 0)), empty, use_acc=False, is_async=True)
    scores = warpgroup_mma_wait(0, deps=[scores])
    mbarrier.arrive(k_free.index(0), count=1)
    highest = gl.full([ROWS], float("-inf"), gl.float32, gl.SliceLayout(1, S))
    total = gl.zeros([ROWS], gl.float32, gl.SliceLayout(1, S))
    weights, decay, highest, total = _weigh(scores, highest, total, last, limit, scale, KEYS, True)
    weights = gl.convert_layout(weights.to(q.dtype.element_ty), A)
    acc = gl.zeros([ROWS, DIM], gl.float32, O)

    mbarrier.wait(v_ready.index(0), 0)
    if last + KEYS > end:
        # What a page holds behind the last token may be NaN, and 0 * NaN would reach the result.
        V: gl.constexpr = gl.BlockedLayout([1, 8], [256 // DIM, DIM // 8], [4, 1], [1, 0])
        keys = last + gl.arange(0, KEYS, gl.SliceLayout(1, V))
        values = v_ring.index(0).load(V)
        v_ring.index(0).store(gl.where((keys < end)[:, None], values, 0.0))
        fence_async_shared()

    for turn in range(1, masked):
        acc, total, highest, weights = _step(
            acc, total, highest, weights, queries, k_ring, v_ring, k_ready, k_free, v_ready, v_free,
            turns, turn, last - turn * KEYS, limit, scale, pins.index(part), part, KEYS, STAGES, PINGPONG, True, PIN,
        )  # fmt: skip
    for turn in range(masked, blocks):
        acc, total, highest, weights = _step(
            acc, total, highest, weights, queries, k_ring, v_ring, k_ready, k_free, v_ready, v_free,
            turns, turn, last - turn * KEYS, limit, scale, pins.index(part), part, KEYS, STAGES, PINGPONG, False, PIN,
        )  # fmt: skip
    mbarrier.wait(v_ready.index((blocks - 1) % STAGES), (blocks - 1) // STAGES & 1)
    acc = warpgroup_mma(weights, v_ring.index((blocks - 1) % STAGES), acc, is_async=True)
    acc, weights = warpgroup_mma_wait(0, deps=[acc, weights])
    if PINGPONG == 2 and part == 0:
        _enter(turns, part, 0, PINGPONG)

    total = gl.where(total == 0.0, 1.0, total)  # of a row that sees nothing: 0 and -inf
    acc = acc / gl.convert_layout(total, gl.SliceLayout(1, O))[:, None]
    sums = highest + gl.log2(total)
    row_own = row < tokens * GROUP
    if slot >= 0:
        place = (slot.to(gl.int64) * HEADS + head) * (ROWS * GROUPS) + row
        gl.store(part_lse + place, sums, mask=row_own)
        part_row = gl.convert_layout(place, gl.SliceLayout(1, O))
        kept = gl.convert_layout(row_own, gl.SliceLayout(1, O))
        part_dims = gl.arange(0, DIM, gl.SliceLayout(0, O))
        gl.store(parts + part_row[:, None] * DIM + part_dims[None, :], acc, mask=kept[:, None])
    else:
        if LSE:
            sum_row = (first + row // GROUP).to(gl.int64) * (HEADS * GROUP)
            gl.store(lse + sum_row + head * GROUP + row % GROUP, sums * LN_2, mask=row_own)
        mine.store(acc.to(out.dtype.element_ty))
        out_row = token * (HEADS * GROUP) + heads
        gl.store(out + out_row[:, None] * DIM + dims[None, :], mine.load(B), mask=own[:, None])


@gluon.jit
def hopper_attention_kernel(
    q, k_pages, v_pages, table, items, out, lse, parts, part_lse,
    q_token, q_head, table_row, scale,
    HEADS: gl.constexpr, GROUP: gl.constexpr, DIM: gl.constexpr, KEYS: gl.constexpr,
    PAGE: gl.constexpr, STAGES: gl.constexpr, GROUPS: gl.constexpr, REGISTERS: gl.constexpr,
    LOADER_REGISTERS: gl.constexpr,
    PINGPONG: gl.constexpr, Q_REGISTERS: gl.constexpr, LSE: gl.constexpr, PIN: gl.constexpr,
):  # fmt: skip
    """One program for a KV head and an item, like `attention_kernel`, with a tile of 64 * GROUPS rows.

    k_pages, v_pages: descriptors of [slots, HEADS * DIM] with blocks of [BOX, BOX].
    """
    head = gl.program_id(0)
    item = items + gl.program_id(1) * ITEM
    tokens = gl.load(item + 2)
    row, first = gl.load(item), gl.load(item + 1)
    prefix, begin, end = gl.load(item + 3), gl.load(item + 4), gl.load(item + 5)
    slot = gl.load(item + 6)
    table += row.to(gl.int64) * table_row

    kind: gl.constexpr = q.dtype.element_ty
    swizzled: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    boxes: gl.constexpr = STAGES * (KEYS // BOX) * (DIM // BOX)
    k_boxes = gl.allocate_shared_memory(kind, [boxes, BOX, BOX], swizzled)
    v_boxes = gl.allocate_shared_memory(kind, [boxes, BOX, BOX], swizzled)
    k_ring = _view(k_boxes, kind, [STAGES, KEYS, DIM], swizzled)
    v_ring = _view(v_boxes, kind, [STAGES, KEYS, DIM], swizzled)
    q_tile = gl.allocate_shared_memory(kind, [GROUPS, ROWS, DIM], swizzled)
    k_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    turns = gl.allocate_shared_memory(gl.int64, [GROUPS, 1], mbarrier.MBarrierLayout())
    pins = gl.allocate_shared_memory(gl.float32, [GROUPS, ROWS], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_ready.index(stage), count=1)
        mbarrier.init(v_ready.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=GROUPS)
        mbarrier.init(v_free.index(stage), count=GROUPS)
    for part in gl.static_range(GROUPS):
        mbarrier.init(turns.index(part), count=1)
    fence_async_shared()

    if tokens > 0:
        gl.warp_specialize(
            [
                (_consume, (
                    q, out, lse, parts, part_lse, q_token, q_head, head, first, tokens, prefix,
                    begin, end, slot, scale, q_tile, k_ring, v_ring, k_ready, k_free, v_ready,
                    v_free, turns, pins, 0, HEADS, GROUP, DIM, KEYS, STAGES, GROUPS, PINGPONG,
                    Q_REGISTERS, LSE, PIN,
                )),
                (_consume, (
                    q, out, lse, parts, part_lse, q_token, q_head, head, first, tokens, prefix,
                    begin, end, slot, scale, q_tile, k_ring, v_ring, k_ready, k_free, v_ready,
                    v_free, turns, pins, 1, HEADS, GROUP, DIM, KEYS, STAGES, GROUPS, PINGPONG,
                    Q_REGISTERS, LSE, PIN,
                )),
                (_produce, (
                    k_pages, v_pages, table, begin, end, head, k_boxes, v_boxes, k_ready, k_free,
                    v_ready, v_free, DIM, KEYS, PAGE, STAGES,
                )),
            ],
            [4, 1],
            [REGISTERS, LOADER_REGISTERS],
        )  # fmt: skip
