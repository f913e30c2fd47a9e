"""The attention of long prompts on Hopper: one warp loads pages, two warpgroups compute.

The algorithm is FlashAttention-3 (Shah et al., 2024, arXiv:2407.08608). A warp keeps a ring of blocks
filled by the copy engine. Each warpgroup attends with half the rows of a tile, and starts the scores
of a block before it weighs the values of the block before, so that tensor cores and exponentials
work at the same time: Triton's own pipeliner runs them in turn, so this kernel is written in Gluon.
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

from inarch_triton.work import ITEM_FIELDS

LN_2 = gl.constexpr(0.6931471805599453)
ITEM = gl.constexpr(ITEM_FIELDS)
HALF = gl.constexpr(64)  # rows of a warpgroup: what one of its matrix products takes
BOX = gl.constexpr(64)  # keys and features that one copy brings: 128 bytes of each key
SWIZZLED = gl.constexpr(gl.NVMMASharedLayout(128, 16, 2))
LOADER_REGISTERS = gl.constexpr(40)  # of a thread; what the loading warp gives up, the others get
REGISTERS = gl.constexpr(232)

# Renamed after Triton 3.6.
_copy = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
_view = getattr(gl.shared_memory_descriptor, "reinterpret", None) or (
    gl.shared_memory_descriptor._reinterpret
)


@gluon.jit
def _find(table, key, PAGE: gl.constexpr):
    return gl.load(table + key // PAGE) * PAGE + key % PAGE


@gluon.jit
def _load(pages, column, table, at, end, ring, turn, DIM: gl.constexpr, PAGE: gl.constexpr):
    """Bring the keys [at, at + 2 * BOX) of one head to their stage of the ring, once it is free."""
    blocks, ready, free = ring
    STAGES: gl.constexpr = ready.shape[0]
    stage = turn % STAGES
    low = _find(table, at, PAGE)
    high = _find(table, gl.minimum(at + BOX, (end - 1) // BOX * BOX), PAGE)
    mbarrier.wait(free.index(stage), (turn // STAGES & 1) ^ 1)
    mbarrier.expect(ready.index(stage), 2 * BOX * DIM * 2)
    for part in gl.static_range(DIM // BOX):
        place = (stage * (DIM // BOX) + part) * 2
        _copy(pages, [low, column + part * BOX], ready.index(stage), blocks.index(place))
        _copy(pages, [high, column + part * BOX], ready.index(stage), blocks.index(place + 1))


@gluon.jit
def _produce(
    k_pages, v_pages, column, table, table_row, item, k_ring, v_ring,
    DIM: gl.constexpr, KEYS: gl.constexpr, PAGE: gl.constexpr,
):  # fmt: skip
    """Load all blocks in the order in which they are used: from the last, values one behind keys."""
    table += gl.load(item).to(gl.int64) * table_row
    begin, end = gl.load(item + 4), gl.load(item + 5)
    blocks = (end - begin + KEYS - 1) // KEYS
    for turn in range(blocks):
        at = begin + (blocks - 1 - turn) * KEYS
        _load(k_pages, column, table, at, end, k_ring, turn, DIM, PAGE)
        if turn > 0:
            _load(v_pages, column, table, at + KEYS, end, v_ring, turn - 1, DIM, PAGE)
    _load(v_pages, column, table, begin, end, v_ring, blocks - 1, DIM, PAGE)


@gluon.jit
def _start_scores(q, ring, turn):
    """Score the block of this turn; the product goes on while the warpgroup does."""
    blocks, ready, _ = ring
    STAGES: gl.constexpr = blocks.shape[0]
    KEYS: gl.constexpr = blocks.shape[1]
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    mbarrier.wait(ready.index(turn % STAGES), turn // STAGES & 1)
    keys = blocks.index(turn % STAGES).permute((1, 0))
    zeros = gl.zeros([HALF, KEYS], gl.float32, S)
    return warpgroup_mma(q, keys, zeros, use_acc=False, is_async=True)


@gluon.jit
def _start_values(weights, ring, turn, acc):
    """Add the values of the block of this turn, weighed, in the same way."""
    blocks, ready, _ = ring
    STAGES: gl.constexpr = blocks.shape[0]
    mbarrier.wait(ready.index(turn % STAGES), turn // STAGES & 1)
    return warpgroup_mma(weights, blocks.index(turn % STAGES), acc, is_async=True)


@gluon.jit
def _release(ring, turn):
    blocks, _, free = ring
    mbarrier.arrive(free.index(turn % blocks.shape[0]), count=1)


@gluon.jit
def _weigh(scores, highest, total, at, limit, scale, MASKED: gl.constexpr):
    """The online softmax of one block: its weights, and how much what came before counts still."""
    if MASKED:
        keys = at + gl.arange(0, scores.shape[1], gl.SliceLayout(0, scores.type.layout))
        scores = gl.where(keys[None, :] <= limit[:, None], scores, float("-inf"))
    new = gl.maximum(highest, gl.max(scores, 1) * scale)
    shift = gl.where(new == float("-inf"), 0.0, new) if MASKED else new
    weights = gl.exp2(scores * scale - shift[:, None])
    decay = gl.exp2(highest - shift)
    return weights, decay, new, total * decay + gl.sum(weights, 1)


@gluon.jit
def _attend(
    acc, total, highest, weights, q, k_ring, v_ring, start, stop, last, limit, scale,
    MASKED: gl.constexpr,
):  # fmt: skip
    """Go on with the blocks of the turns [start, stop), scoring each while the one before is weighed."""
    KEYS: gl.constexpr = k_ring[0].shape[1]
    for turn in range(start, stop):
        scores = _start_scores(q, k_ring, turn)
        acc = _start_values(weights, v_ring, turn - 1, acc)
        scores = warpgroup_mma_wait(1, deps=[scores])
        _release(k_ring, turn)
        next_weights, decay, highest, total = _weigh(
            scores, highest, total, last - turn * KEYS, limit, scale, MASKED
        )
        acc, weights = warpgroup_mma_wait(0, deps=[acc, weights])
        _release(v_ring, turn - 1)
        acc = acc * gl.convert_layout(decay, gl.SliceLayout(1, acc.type.layout))[:, None]
        weights = gl.convert_layout(next_weights.to(weights.dtype), weights.type.layout)
    return acc, total, highest, weights


@gluon.jit
def _hide(block, end):
    """Zero what a page holds behind the last token: it may be NaN, and 0 * NaN would be NaN."""
    DIM: gl.constexpr = block.shape[1]
    V: gl.constexpr = gl.BlockedLayout([1, 8], [256 // DIM, DIM // 8], [4, 1], [1, 0])
    keys = gl.arange(0, block.shape[0], gl.SliceLayout(1, V))
    block.store(gl.where((keys < end)[:, None], block.load(V), 0.0))
    fence_async_shared()


@gluon.jit
def _rows(item, head, half: gl.constexpr, GROUP: gl.constexpr, LAYOUT: gl.constexpr):
    """Rows of the tile that this warpgroup has, their tokens in the batch, heads, and which exist.

    Read anew for each use: what the loop need not hold leaves it registers.
    """
    rows = half * HALF + gl.arange(0, HALF, gl.SliceLayout(1, LAYOUT))
    pair = gl.load(item + 1) * GROUP + rows
    own = rows < gl.load(item + 2) * GROUP
    return rows, (pair // GROUP).to(gl.int64), head * GROUP + pair % GROUP, own


@gluon.jit
def _put_aside(
    acc, sums, parts, part_lse, item, head,
    half: gl.constexpr, HEADS: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """The result of a chunk, for `merge_kernel`."""
    S: gl.constexpr = sums.type.layout.parent
    O: gl.constexpr = acc.type.layout  # noqa: E741
    part = (gl.load(item + 6).to(gl.int64) * HEADS + head) * (2 * HALF)
    rows, _, _, own = _rows(item, head, half, GROUP, S)
    gl.store(part_lse + part + rows, sums, mask=own)
    rows, _, _, own = _rows(item, head, half, GROUP, O)
    dims = gl.arange(0, acc.shape[1], gl.SliceLayout(0, O))
    places = parts + ((part + rows) * acc.shape[1])[:, None] + dims[None, :]
    gl.store(places, acc, mask=own[:, None])


@gluon.jit
def _give_out(
    acc, sums, out, lse, room, item, head,
    half: gl.constexpr, HEADS: gl.constexpr, GROUP: gl.constexpr, LSE: gl.constexpr,
):  # fmt: skip
    """The final result of the rows, through shared memory that nothing needs any more."""
    S: gl.constexpr = sums.type.layout.parent
    DIM: gl.constexpr = acc.shape[1]
    B: gl.constexpr = gl.BlockedLayout([1, 8], [256 // DIM, DIM // 8], [4, 1], [1, 0])
    if LSE:
        _, token, heads, own = _rows(item, head, half, GROUP, S)
        gl.store(lse + token * (HEADS * GROUP) + heads, sums * LN_2, mask=own)
    room.store(acc.to(out.dtype.element_ty))  # so that neighbouring threads write neighbours
    _, token, heads, own = _rows(item, head, half, GROUP, B)
    dims = gl.arange(0, DIM, gl.SliceLayout(0, B))
    places = out + ((token * (HEADS * GROUP) + heads) * DIM)[:, None] + dims[None, :]
    gl.store(places, room.load(B), mask=own[:, None])


@gluon.jit
def _consume(
    inputs, outputs, item, head, q_tile, k_ring, v_ring,
    half: gl.constexpr, HEADS: gl.constexpr, GROUP: gl.constexpr, LSE: gl.constexpr,
):  # fmt: skip
    """Attend with the rows [half * HALF, + HALF) of a tile."""
    q, q_token, q_head, scale = inputs
    out, lse, parts, part_lse = outputs
    KEYS: gl.constexpr = k_ring[0].shape[1]
    DIM: gl.constexpr = k_ring[0].shape[2]
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    O: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DIM, 16])  # noqa: E741
    W: gl.constexpr = gl.DotOperandLayout(0, O, 2)
    B: gl.constexpr = gl.BlockedLayout([1, 8], [256 // DIM, DIM // 8], [4, 1], [1, 0])

    dims = gl.arange(0, DIM, gl.SliceLayout(0, B))
    _, token, heads, own = _rows(item, head, half, GROUP, B)
    places = q + (token * q_token + heads * q_head)[:, None] + dims[None, :]
    queries = q_tile.index(half)
    queries.store(gl.load(places, mask=own[:, None], other=0.0))
    fence_async_shared()

    prefix, begin, end = gl.load(item + 3), gl.load(item + 4), gl.load(item + 5)
    blocks = (end - begin + KEYS - 1) // KEYS
    last = begin + (blocks - 1) * KEYS
    # Keys before `far` are behind no query of the tile. The walk begins at the last block.
    far = begin + gl.maximum(gl.minimum(end, prefix + 1) - begin, 0) // KEYS * KEYS
    masked = gl.maximum((end - far + KEYS - 1) // KEYS, 1)
    row = half * HALF + gl.arange(0, HALF, gl.SliceLayout(1, S))
    limit = gl.minimum(prefix + row // GROUP, end - 1)

    scores = warpgroup_mma_wait(0, deps=[_start_scores(queries, k_ring, 0)])
    _release(k_ring, 0)
    highest = gl.full([HALF], float("-inf"), gl.float32, gl.SliceLayout(1, S))
    total = gl.zeros([HALF], gl.float32, gl.SliceLayout(1, S))
    weights, _, highest, total = _weigh(scores, highest, total, last, limit, scale, True)
    weights = gl.convert_layout(weights.to(q.dtype.element_ty), W)
    acc = gl.zeros([HALF, DIM], gl.float32, O)
    if last + KEYS > end:
        mbarrier.wait(v_ring[1].index(0), 0)
        _hide(v_ring[0].index(0), end - last)

    acc, total, highest, weights = _attend(
        acc, total, highest, weights, queries, k_ring, v_ring, 1, masked, last, limit, scale, True
    )
    acc, total, highest, weights = _attend(
        acc, total, highest, weights, queries, k_ring, v_ring, masked, blocks, last, limit, scale,
        False,
    )  # fmt: skip
    acc = _start_values(weights, v_ring, blocks - 1, acc)
    acc, weights = warpgroup_mma_wait(0, deps=[acc, weights])

    total = gl.where(total == 0.0, 1.0, total)  # of a row that sees nothing: 0 and -inf
    acc = acc / gl.convert_layout(total, gl.SliceLayout(1, O))[:, None]
    sums = highest + gl.log2(total)
    if gl.load(item + 6) >= 0:
        _put_aside(acc, sums, parts, part_lse, item, head, half, HEADS, GROUP)
    else:
        _give_out(acc, sums, out, lse, queries, item, head, half, HEADS, GROUP, LSE)


@gluon.jit
def hopper_attention_kernel(
    q, k_pages, v_pages, table, items, out, lse, parts, part_lse,
    q_token, q_head, table_row, scale,
    HEADS: gl.constexpr, GROUP: gl.constexpr, DIM: gl.constexpr, ROWS: gl.constexpr,
    KEYS: gl.constexpr, STAGES: gl.constexpr, PAGE: gl.constexpr, LSE: gl.constexpr,
):  # fmt: skip
    """One program for a KV head and an item, as in `attention_kernel`. Pages come as `hopper.boxes`."""
    gl.static_assert(ROWS == 2 * HALF and KEYS == 2 * BOX and PAGE % BOX == 0)
    head = gl.program_id(0)
    item = items + gl.program_id(1) * ITEM

    # The copy engine fills boxes; a matrix product reads the boxes of a stage as one block.
    kind: gl.constexpr = q.dtype.element_ty
    count: gl.constexpr = STAGES * 2 * (DIM // BOX)
    k_boxes = gl.allocate_shared_memory(kind, [count, BOX, BOX], SWIZZLED)
    v_boxes = gl.allocate_shared_memory(kind, [count, BOX, BOX], SWIZZLED)
    k_blocks = _view(k_boxes, kind, [STAGES, KEYS, DIM], SWIZZLED)
    v_blocks = _view(v_boxes, kind, [STAGES, KEYS, DIM], SWIZZLED)
    q_tile = gl.allocate_shared_memory(kind, [2, HALF, DIM], SWIZZLED)
    k_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_ready.index(stage), count=1)
        mbarrier.init(v_ready.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=2)
        mbarrier.init(v_free.index(stage), count=2)
    fence_async_shared()

    if gl.load(item + 2) > 0:
        inputs = (q, q_token, q_head, scale)
        outputs = (out, lse, parts, part_lse)
        k_ring, v_ring = (k_blocks, k_ready, k_free), (v_blocks, v_ready, v_free)
        k_loads, v_loads = (k_boxes, k_ready, k_free), (v_boxes, v_ready, v_free)
        gl.warp_specialize(
            [
                (_consume, (
                    inputs, outputs, item, head, q_tile, k_ring, v_ring, 0, HEADS, GROUP, LSE,
                )),
                (_consume, (
                    inputs, outputs, item, head, q_tile, k_ring, v_ring, 1, HEADS, GROUP, LSE,
                )),
                (_produce, (
                    k_pages, v_pages, head * DIM, table, table_row, item, k_loads, v_loads,
                    DIM, KEYS, PAGE,
                )),
            ],
            [4, 1],
            [REGISTERS, LOADER_REGISTERS],
        )  # fmt: skip
