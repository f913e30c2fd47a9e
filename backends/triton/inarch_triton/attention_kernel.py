"""One attention kernel for decode, extend, prefill and verification, and one that merges chunks.

A program holds the query rows of a tile, pairs of (token, head of one KV group), and walks over keys
in pages with an online softmax (Milakov and Gimelshein, 2018, arXiv:1805.02867; Dao, 2023,
arXiv:2307.08691). Query heads that share a KV head share its loads. Scores are kept in powers of two.
"""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inarch_triton.options import LOG2_E
from inarch_triton.work import ITEM_FIELDS, JOB_FIELDS

LN_2 = tl.constexpr(0.6931471805599453)
ITEM = tl.constexpr(ITEM_FIELDS)
JOB = tl.constexpr(JOB_FIELDS)


@triton.jit
def _dot(a, b, acc, UPCAST: tl.constexpr, EXACT: tl.constexpr):
    if UPCAST:  # Triton's interpreter computes with the raw bits of bfloat16
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    if EXACT:
        return tl.dot(a, b, acc, input_precision="ieee")
    return tl.dot(a, b, acc)


@triton.jit
def _find(table, at, end, KEYS: tl.constexpr, PAGE: tl.constexpr):
    """The slots of the keys [at, at + KEYS); the first of them alone where one page holds them."""
    if PAGE >= KEYS:
        slots = tl.load(table + at // PAGE, mask=at < end, other=0) * PAGE + at % PAGE
    else:
        keys = at + tl.arange(0, KEYS)
        slots = tl.load(table + keys // PAGE, mask=keys < end, other=0) * PAGE + keys % PAGE
    return slots


@triton.jit
def _load(
    pages, slots, present, head, dtype: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr, KEYS: tl.constexpr, PAGE: tl.constexpr, DESCRIPTORS: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """K or V of one head in `dtype`: [KEYS, BLOCK_DIM]; if MASKED, 0 where there is no key.

    What a page holds behind the last token may be NaN, and 0 * NaN would reach the result.
    """
    if DESCRIPTORS:
        tile = pages.load([slots, head * DIM]).to(dtype)
        if MASKED:
            tile = tl.where(present[:, None], tile, 0.0)
    else:
        if PAGE >= KEYS:
            slots += tl.arange(0, KEYS)
        dims = tl.arange(0, BLOCK_DIM)
        places = pages + slots.to(tl.int64)[:, None] * (HEADS * DIM) + head * DIM + dims[None, :]
        if MASKED and BLOCK_DIM != DIM:
            tile = tl.load(places, mask=present[:, None] & (dims < DIM)[None, :], other=0.0)
        elif MASKED:
            tile = tl.load(places, mask=present[:, None], other=0.0)
        elif BLOCK_DIM != DIM:
            tile = tl.load(places, mask=(dims < DIM)[None, :], other=0.0)
        else:
            tile = tl.load(places)
        tile = tile.to(dtype)
    return tile


# The bytes of two 16-bit words, first the even and then the odd ones, as two 16-bit floats each.
SPLIT = tl.constexpr("""{
    .reg .b32 even, odd;
    .reg .b16 low, high, rest;
    prmt.b32 even, $2, 0, 0x4420;
    prmt.b32 odd, $2, 0, 0x4431;
    mov.b32 {low, rest}, even;
    mov.b32 {high, rest}, odd;
    cvt.rn.f16x2.e4m3x2 $0, low;
    cvt.rn.f16x2.e4m3x2 $1, high;
}""")


@triton.jit
def _halves(pairs, INTERPRETED: tl.constexpr):
    """Of pairs of 8-bit floats, as int16: the even ones and the odd ones, as float16, exactly."""
    if INTERPRETED:
        low, high = (pairs & 0xFF).to(tl.uint8), ((pairs >> 8) & 0xFF).to(tl.uint8)
        even = low.to(tl.float8e4nv, bitcast=True).to(tl.float16)
        odd = high.to(tl.float8e4nv, bitcast=True).to(tl.float16)
    else:
        even, odd = tl.inline_asm_elementwise(
            SPLIT, "=r,=r,r", [pairs], dtype=(tl.float16, tl.float16), is_pure=True, pack=2
        )
    return even, odd


@triton.jit
def _attend(
    acc, odd_acc, total, highest, q, odd_q, k_pages, v_pages, table, head, start, stop, end,
    position, prefix, ancestors, scale, cap,
    HEADS: tl.constexpr, KEY_DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    BLOCK_KEY: tl.constexpr, BLOCK_VALUE: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    PAGE: tl.constexpr, DESCRIPTORS: tl.constexpr, PAIRS: tl.constexpr, WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr, TREE: tl.constexpr, UPCAST: tl.constexpr, EXACT: tl.constexpr,
    INTERPRETED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Go on with the online softmax over the keys [start, stop); `end` bounds what may be read.

    PAIRS: all sizes of heads count pairs, of which q and acc are the even features, odd_q and odd_acc
    the odd ones.
    """
    dtype: tl.constexpr = tl.int16 if PAIRS else q.dtype
    ahead = _find(table, start, end, KEYS, PAGE)
    for at in tl.range(start, stop, KEYS):
        keys = at + tl.arange(0, KEYS)
        slots = ahead  # found one turn early, so that loads of K and V can be begun early too
        ahead = _find(table, at + KEYS, end, KEYS, PAGE)
        k = _load(
            k_pages, slots, keys < end, head, dtype,
            HEADS, KEY_DIM, BLOCK_KEY, KEYS, PAGE, DESCRIPTORS, MASKED,
        )  # fmt: skip
        scores = tl.zeros([ROWS, KEYS], tl.float32)
        if PAIRS:
            k, odd_k = _halves(k, INTERPRETED)
            scores = _dot(odd_q, tl.trans(odd_k), scores, UPCAST, EXACT)
        scores = _dot(q, tl.trans(k), scores, UPCAST, EXACT)
        if SOFTCAP:  # tanh(x) = 1 - 2 / (exp(2 x) + 1), exact at both ends
            scores = 1.0 - 2.0 / (tl.exp2(scores * cap) + 1.0)
        if MASKED:
            if TREE:
                drafted = keys - prefix
                bit = tl.minimum(tl.maximum(drafted, 0), 63).to(tl.int64)
                related = ((ancestors[:, None] >> bit[None, :]) & 1) != 0
                near = (drafted < 0)[None, :]
                if WINDOW > 0:
                    near = near & (keys[None, :] > position[:, None] - WINDOW)
                visible = near | (related & (drafted >= 0)[None, :])
            else:
                visible = keys[None, :] <= position[:, None]
                if WINDOW > 0:
                    visible = visible & (keys[None, :] > position[:, None] - WINDOW)
            scores = tl.where(visible & (keys < end)[None, :], scores, float("-inf"))
        new = tl.maximum(highest, tl.max(scores, 1) * scale)
        shift = tl.where(new == float("-inf"), 0.0, new) if MASKED else new
        weights = tl.exp2(scores * scale - shift[:, None])
        decay = tl.exp2(highest - shift)
        total = total * decay + tl.sum(weights, 1)
        acc = acc * decay[:, None]
        v = _load(
            v_pages, slots, keys < end, head, dtype,
            HEADS, VALUE_DIM, BLOCK_VALUE, KEYS, PAGE, DESCRIPTORS, MASKED,
        )  # fmt: skip
        if not UPCAST:
            weights = weights.to(q.dtype)
        if PAIRS:
            v, odd_v = _halves(v, INTERPRETED)
            odd_acc = _dot(weights, odd_v, odd_acc * decay[:, None], UPCAST, EXACT)
        acc = _dot(weights, v, acc, UPCAST, EXACT)
        highest = new
    return acc, odd_acc, total, highest


@triton.jit
def _query(q, own, token, heads, q_token, q_head, first, STEP: tl.constexpr, DIM: tl.constexpr,
           BLOCK: tl.constexpr):  # fmt: skip
    """[ROWS, BLOCK]: every STEP-th feature from `first`, DIM of them."""
    dims = tl.arange(0, BLOCK)
    place = q + token[:, None] * q_token + heads[:, None] * q_head + first + STEP * dims[None, :]
    return tl.load(place, mask=own[:, None] & (dims < DIM)[None, :], other=0.0)


@triton.jit
def _take_up(
    acc, total, highest, parts, part_lse, slot, count, first_row, head, own,
    HEADS: tl.constexpr, BLOCK_VALUE: tl.constexpr, ROWS: tl.constexpr, PART_ROWS: tl.constexpr,
):  # fmt: skip
    """Go on with the online softmax over `count` chunks that a launch before this one put aside."""
    rows = first_row + tl.arange(0, ROWS)
    values = tl.arange(0, BLOCK_VALUE)
    for at in tl.range(0, count):
        place = ((slot + at).to(tl.int64) * HEADS + head) * PART_ROWS + rows
        sums = tl.load(part_lse + place, mask=own, other=float("-inf"))
        part = tl.load(
            parts + place[:, None] * BLOCK_VALUE + values[None, :], mask=own[:, None], other=0.0
        )
        new = tl.maximum(highest, sums)
        shift = tl.where(new == float("-inf"), 0.0, new)
        weights = tl.exp2(sums - shift)
        decay = tl.exp2(highest - shift)
        acc = acc * decay[:, None] + part * weights[:, None]
        total = total * decay + weights
        highest = new
    return acc, total, highest


@triton.jit
def _finish(
    acc, total, highest, place, own, out, lse,
    VALUE_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr, LSE: tl.constexpr,
):  # fmt: skip
    """Write the rows at `place`, tokens times heads; of a row that sees nothing: 0 and -inf."""
    values = tl.arange(0, BLOCK_VALUE)
    total = tl.where(total == 0.0, 1.0, total)
    if LSE:
        tl.store(lse + place, (highest + tl.log2(total)) * LN_2, mask=own)
    tl.store(
        out + place[:, None] * VALUE_DIM + values[None, :],
        (acc / total[:, None]).to(out.dtype.element_ty),
        mask=own[:, None] & (values < VALUE_DIM)[None, :],
    )


@triton.jit
def _merge(
    parts, part_lse, sinks, out, lse, begin, rows, own, head, first, count,
    HEADS: tl.constexpr, GROUP: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    ROWS: tl.constexpr, CHUNKS: tl.constexpr, SINKS: tl.constexpr, LSE: tl.constexpr,
):  # fmt: skip
    """Weigh the chunks of some rows of a tile by their sums, in their order, CHUNKS at once."""
    token = (begin + rows // GROUP).to(tl.int64)
    own_head = head * GROUP + rows % GROUP
    values = tl.arange(0, BLOCK_VALUE)
    highest = tl.full(rows.shape, float("-inf"), tl.float32)
    total = tl.zeros(rows.shape, tl.float32)
    if SINKS:
        highest = tl.load(sinks + own_head, mask=own, other=0.0).to(tl.float32) * LOG2_E
        total += 1.0
    acc = tl.zeros([rows.shape[0], BLOCK_VALUE], tl.float32)
    for at in tl.range(0, count, CHUNKS):
        chunk = (first + at + tl.arange(0, CHUNKS)).to(tl.int64)
        there = (chunk < first + count)[:, None] & own[None, :]
        place = (chunk[:, None] * HEADS + head) * ROWS + rows[None, :]
        sums = tl.load(part_lse + place, mask=there, other=float("-inf"), cache_modifier=".cg")
        part = tl.load(
            parts + place[:, :, None] * BLOCK_VALUE + values[None, None, :],
            mask=there[:, :, None], other=0.0, cache_modifier=".cg",
        )  # fmt: skip
        new = tl.maximum(highest, tl.max(sums, 0))
        shift = tl.where(new == float("-inf"), 0.0, new)
        weights = tl.exp2(sums - shift[None, :])
        decay = tl.exp2(highest - shift)
        acc = acc * decay[:, None] + tl.sum(part * weights[:, :, None], 0)
        total = total * decay + tl.sum(weights, 0)
        highest = new
    place = token * (HEADS * GROUP) + own_head
    _finish(acc, total, highest, place, own, out, lse, VALUE_DIM, BLOCK_VALUE, LSE)


@triton.jit
def attention_kernel(  # noqa: C901, PLR0915
    q, k_pages, v_pages, table, items, tree, members, sinks, out, lse,
    parts, part_lse, counters, shared_parts, shared_lse, q_token, q_head, table_row, scale, cap,
    HEADS: tl.constexpr, GROUP: tl.constexpr, KEY_DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    BLOCK_KEY: tl.constexpr, BLOCK_VALUE: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    PAGE: tl.constexpr, DESCRIPTORS: tl.constexpr, PAIRS: tl.constexpr, WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr, SINKS: tl.constexpr, LSE: tl.constexpr, TREE: tl.constexpr,
    GATHERED: tl.constexpr, SHARED_ROWS: tl.constexpr, MERGED_ROWS: tl.constexpr,
    CHUNKS: tl.constexpr, UPCAST: tl.constexpr, EXACT: tl.constexpr,
    INTERPRETED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program for a KV head and an item. q [T, H, D], out [T, H, VALUE_DIM], lse [T, H].

    scale: to powers of two, after the cap; cap: what a score is multiplied with before the cap.
    GATHERED: the tokens of an item are named by `members`. SHARED_ROWS: of the tiles that another
    launch has put aside in shared_parts; 0 if there are none. MERGED_ROWS: of tiles whose chunks are
    merged by the last of their programs; 0 if a launch of merge_kernel follows. counters: int32, one
    for each slot and head, zero before and after. PAIRS: pages of 8-bit floats, given as int16: what
    matrix products want of them comes out of shared memory by 16 bits and no less.
    """
    head = tl.program_id(0)
    item = items + tl.program_id(1) * ITEM
    row, first, tokens = tl.load(item), tl.load(item + 1), tl.load(item + 2)
    prefix, begin, end = tl.load(item + 3), tl.load(item + 4), tl.load(item + 5)
    slot = tl.load(item + 6)
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    if tokens == 0:
        return
    table += row.to(tl.int64) * table_row

    rows = tl.arange(0, ROWS)
    own = rows < tokens * GROUP
    token = (first + rows // GROUP).to(tl.int64)
    if GATHERED:
        token = tl.load(members + token, mask=own, other=0).to(tl.int64)
    heads = head * GROUP + rows % GROUP
    PARTS: tl.constexpr = 2 if PAIRS else 1  # of which one product each
    KEY: tl.constexpr = KEY_DIM // PARTS
    VALUE: tl.constexpr = VALUE_DIM // PARTS
    KEY_BLOCK: tl.constexpr = BLOCK_KEY // PARTS
    VALUE_BLOCK: tl.constexpr = BLOCK_VALUE // PARTS
    q_tile = _query(q, own, token, heads, q_token, q_head, 0, PARTS, KEY, KEY_BLOCK)
    odd_q = q_tile
    if PAIRS:
        odd_q = _query(q, own, token, heads, q_token, q_head, 1, 2, KEY, KEY_BLOCK).to(tl.float16)
        q_tile = q_tile.to(tl.float16)

    ancestors = tl.zeros([ROWS], tl.int64)
    position = prefix + rows // GROUP
    last = prefix + tokens - 1
    common = prefix + 1  # keys before this one are behind no query of the tile
    if TREE:
        ancestors = tl.load(tree + token * 2, mask=own, other=0)
        position = tl.load(tree + token * 2 + 1, mask=own, other=0).to(tl.int32)
        last = prefix + 63
        common = prefix

    # Blocks [near, far) are seen whole by every row, so they need no mask.
    far = begin + tl.maximum(tl.minimum(end, common) - begin, 0) // KEYS * KEYS
    near = begin
    if WINDOW > 0:
        hidden = tl.maximum(last - WINDOW + 1 - begin, 0)
        near = begin + (hidden + KEYS - 1) // KEYS * KEYS
        near = tl.minimum(near, begin + (end - begin + KEYS - 1) // KEYS * KEYS)
        far = tl.maximum(far, near)

    if not DESCRIPTORS:  # noqa: SIM102
        if k_pages.dtype.element_ty == tl.float8e4b8:  # half of what is meant, as V is
            if SOFTCAP:
                cap *= 2.0
            else:
                scale *= 2.0
    acc = tl.zeros([ROWS, VALUE_BLOCK], tl.float32)
    odd_acc = tl.zeros([ROWS, VALUE_BLOCK], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    if WINDOW > 0:
        acc, odd_acc, total, highest = _attend(
            acc, odd_acc, total, highest, q_tile, odd_q, k_pages, v_pages, table, head, begin, near, end,
            position, prefix, ancestors, scale, cap,
            HEADS, KEY, VALUE, KEY_BLOCK, VALUE_BLOCK, ROWS, KEYS, PAGE, DESCRIPTORS,
            PAIRS, WINDOW, SOFTCAP, TREE, UPCAST, EXACT, INTERPRETED, True,
        )  # fmt: skip
    acc, odd_acc, total, highest = _attend(
        acc, odd_acc, total, highest, q_tile, odd_q, k_pages, v_pages, table, head, near, far, end,
        position, prefix, ancestors, scale, cap,
        HEADS, KEY, VALUE, KEY_BLOCK, VALUE_BLOCK, ROWS, KEYS, PAGE, DESCRIPTORS,
        PAIRS, WINDOW, SOFTCAP, TREE, UPCAST, EXACT, INTERPRETED, False,
    )  # fmt: skip
    acc, odd_acc, total, highest = _attend(
        acc, odd_acc, total, highest, q_tile, odd_q, k_pages, v_pages, table, head, far, end, end,
        position, prefix, ancestors, scale, cap,
        HEADS, KEY, VALUE, KEY_BLOCK, VALUE_BLOCK, ROWS, KEYS, PAGE, DESCRIPTORS,
        PAIRS, WINDOW, SOFTCAP, TREE, UPCAST, EXACT, INTERPRETED, True,
    )  # fmt: skip

    if not DESCRIPTORS:  # noqa: SIM102
        if v_pages.dtype.element_ty == tl.float8e4b8:
            acc *= 2.0
    if PAIRS:
        acc = tl.interleave(acc, odd_acc)
    if SHARED_ROWS > 0:
        acc, total, highest = _take_up(
            acc, total, highest, shared_parts, shared_lse,
            tl.load(item + 7), tl.load(item + 8), tl.load(item + 9), head, own,
            HEADS, BLOCK_VALUE, ROWS, SHARED_ROWS,
        )  # fmt: skip

    values = tl.arange(0, BLOCK_VALUE)
    if slot >= 0:
        place = (slot.to(tl.int64) * HEADS + head) * ROWS + rows
        total = tl.where(total == 0.0, 1.0, total)  # of a row that sees nothing: 0 and -inf
        acc = acc / total[:, None]
        tl.store(part_lse + place, highest + tl.log2(total), mask=own)
        tl.store(parts + place[:, None] * BLOCK_VALUE + values[None, :], acc, mask=own[:, None])
        if MERGED_ROWS > 0:
            start, count = tl.load(item + 10), tl.load(item + 11)
            counter = counters + start * HEADS + head
            tl.debug_barrier()  # the counter speaks for all threads of this program
            if tl.atomic_add(counter, 1, sem="acq_rel") == count - 1:
                tl.debug_barrier()
                tl.store(counter, 0)  # as the next launch wants it
                merged = tl.arange(0, MERGED_ROWS)
                _merge(
                    parts, part_lse, sinks, out, lse, first, merged, merged < tokens * GROUP,
                    head, start, count,
                    HEADS, GROUP, VALUE_DIM, BLOCK_VALUE, ROWS, CHUNKS, SINKS, LSE,
                )  # fmt: skip
        return
    if SINKS:
        sink = tl.load(sinks + heads, mask=own, other=0.0).to(tl.float32) * LOG2_E
        with_sink = tl.maximum(highest, sink)
        decay = tl.exp2(highest - with_sink)
        total = total * decay + tl.exp2(sink - with_sink)
        acc = acc * decay[:, None]
        highest = with_sink
    place = token * (HEADS * GROUP) + heads
    _finish(acc, total, highest, place, own, out, lse, VALUE_DIM, BLOCK_VALUE, LSE)


@triton.jit
def merge_kernel(
    parts, part_lse, jobs, sinks, out, lse,
    HEADS: tl.constexpr, GROUP: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    ROWS: tl.constexpr, CHUNKS: tl.constexpr, SINKS: tl.constexpr, LSE: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """One program for a row of a tile, a KV head and a job."""
    row, head = tl.program_id(0), tl.program_id(1)
    job = jobs + tl.program_id(2) * JOB
    begin, tokens, first, count = (
        tl.load(job), tl.load(job + 1), tl.load(job + 2), tl.load(job + 3),
    )  # fmt: skip
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    if row >= tokens * GROUP:
        return
    rows = row + tl.arange(0, 1)
    _merge(
        parts, part_lse, sinks, out, lse, begin, rows, rows >= 0, head, first, count,
        HEADS, GROUP, VALUE_DIM, BLOCK_VALUE, ROWS, CHUNKS, SINKS, LSE,
    )  # fmt: skip
