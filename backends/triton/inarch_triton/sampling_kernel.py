"""The kernels behind `sample`: filters by a search on the value axis, the draw by inverting the CDF.

Kept is a beginning of the order by falling logit, so one number says what is kept: the *cut*, the
lowest value of which a token is kept. A value is kept if fewer than top_k tokens and less than top_p
of the probability lie strictly above it, and it is min_p times as likely as the best. Two levels of
evenly spread edges (`narrow_kernel`, programs for every chunk) leave a short bracket of values; its
tokens are gathered (`gather_kernel`), and `cut_kernel`, one program a row, bisects it to the bit,
counts off the tokens that share the cut, and draws.
"""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import triton
import triton.language as tl

from inarch_triton.ordering import LOWEST, ordered, rank_key, rank_token, unordered
from inarch_triton.survey import INFINITY, LEAST_RANK, LOG2_E, exponent_scale, merged

DEEPEST = tl.constexpr(104.0)  # exp(-104) is 0 in float32: nothing below can be drawn
NO_CHANCE = tl.constexpr(1e-30)  # of a chunk: smaller sums may stem from weights that vanish
SMALL = tl.constexpr(1e-30)


@triton.jit
def limits(top_k, top_p, min_p, filters, row, mass, VOCAB: tl.constexpr):
    """The filters of a row: tokens, mass (of the `mass` of all) and weight; the best always passes.

    Bits 0, 1 and 2 of `filters` say which are in use: a number, so that one compilation serves all.
    """
    p = tl.load(top_p + row)
    tokens = tl.where((filters & 1) != 0, tl.maximum(tl.load(top_k + row), 1), VOCAB)
    limited = ((filters & 2) != 0) & (p < 1)
    share = tl.where(limited, tl.maximum(p * mass, SMALL), INFINITY)
    weight = tl.where((filters & 4) != 0, tl.minimum(tl.load(min_p + row), 1.0), 0.0)
    return tokens, share, weight


@triton.jit
def spread(low, high, LEVEL: tl.constexpr, EDGES: tl.constexpr):
    """Keys falling from `high` to `low`: at first closer together where values are high."""
    edge = tl.arange(0, EDGES)
    part = edge.to(tl.float32) / (EDGES - 1)
    if LEVEL == 0:
        part = part * part
    top, bottom = unordered(high), tl.maximum(unordered(low), -3e38)
    keys = ordered(bottom + (top - bottom) * (1 - part))  # never rising, whatever is rounded
    keys = tl.minimum(tl.maximum(keys, low), high)
    return tl.where(edge == 0, high, tl.where(edge == EDGES - 1, low, keys))


@triton.jit
def bracket(
    edges, counts, masses, row, chunks, peak, scale, tokens, share, weight,
    CHUNKS: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Between which two edges of a level the cut lies: (low, high], and the number of `high`."""
    chunk, edge = tl.arange(0, CHUNKS)[:, None], tl.arange(0, EDGES)
    place = (row * chunks + chunk) * EDGES + edge[None, :]
    count = tl.sum(tl.load(counts + place, mask=chunk < chunks, other=0), 0)
    mass = tl.sum(tl.load(masses + place, mask=chunk < chunks, other=0.0), 0)
    keys = tl.load(edges + row * EDGES + edge)
    likely = tl.exp2((unordered(keys) - peak) * scale) >= weight
    kept = (count < tokens) & (mass < share) & likely
    # The first edge is known to be kept, and the last is taken for one that is not.
    number = tl.sum(tl.where(kept & (edge > 0) & (edge < EDGES - 1), 1, 0), 0)
    high = tl.sum(tl.where(edge == number, keys, 0), 0)
    low = tl.sum(tl.where(edge == number + 1, keys, 0), 0)
    return low, high, number


@triton.jit(do_not_specialize=["filters"])
def narrow_kernel(
    logits, temperature, top_k, top_p, min_p, filters, best, total, least, edges, counts, masses,
    facts, row_stride, chunks,
    LEVEL: tl.constexpr, VOCAB: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr,
    EDGES: tl.constexpr,
):  # fmt: skip
    """Count and weigh what lies above each edge in a chunk: counts, masses [2, S, chunks, EDGES].

    facts [S, 2] float32: highest logit, mass of all. edges [2, S, EDGES] int32: their keys. Both are
    written by the program of the first chunk, for the kernels after this one.
    """
    chunk, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    sequences = tl.num_programs(1)
    warmth = tl.load(temperature + row)
    if warmth > 0:
        scale = exponent_scale(warmth)
        if LEVEL == 0:
            _, peak, parts = merged(best, total, row, chunks, scale, CHUNKS)
            mass = tl.sum(parts, 0)
            numbers = tl.arange(0, CHUNKS)
            lows = tl.load(least + row * chunks + numbers, mask=numbers < chunks, other=INFINITY)
            floor = tl.maximum(tl.min(lows, 0), peak - 1 / scale * LOG2_E * DEEPEST)
            floor = tl.minimum(floor, peak)
            low, high = tl.maximum(ordered(floor) - 1, LOWEST), ordered(peak)
            if chunk == 0:
                tl.store(facts + 2 * row, peak)
                tl.store(facts + 2 * row + 1, mass)
        else:
            peak, mass = tl.load(facts + 2 * row), tl.load(facts + 2 * row + 1)
            tokens, share, weight = limits(top_k, top_p, min_p, filters, row, mass, VOCAB)
            low, high, _ = bracket(
                edges, counts, masses, row, chunks, peak, scale, tokens, share, weight, CHUNKS,
                EDGES,
            )  # fmt: skip
        edge = tl.arange(0, EDGES)
        keys = spread(low, high, LEVEL, EDGES)
        if chunk == 0:
            tl.store(edges + (LEVEL * sequences + row) * EDGES + edge, keys)
        count = tl.zeros((EDGES,), tl.int32)
        heavy = tl.zeros((EDGES,), tl.float32)
        highest = rank_key(tl.load(best + row * chunks + chunk))
        if highest > low:  # else nothing of this chunk is kept, or can matter
            token = chunk * CHUNK + tl.arange(0, CHUNK)
            place = logits + row * row_stride + token
            x = tl.load(place, mask=token < VOCAB, other=-INFINITY)
            key, w = ordered(x), tl.exp2((x - peak) * scale)
            for e in tl.static_range(EDGES):
                higher = key > tl.sum(tl.where(edge == e, keys, 0), 0)
                count = tl.where(edge == e, tl.sum(higher.to(tl.int32), 0), count)
                heavy = tl.where(edge == e, tl.sum(tl.where(higher, w, 0.0), 0), heavy)
        place = ((LEVEL * sequences + row) * chunks + chunk) * EDGES + edge
        tl.store(counts + place, count)
        tl.store(masses + place, heavy)


@triton.jit(do_not_specialize=["filters"])
def gather_kernel(
    logits, temperature, top_k, top_p, min_p, filters, best, edges, counts, masses, facts, bounds, found,
    many, count_above, mass_above, row_stride, chunks,
    VOCAB: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Write the tokens of the bracket to found [S, V] by rising id, how many to many [S], and what
    each chunk has above the bracket to count_above, mass_above [S, chunks]; the bracket's keys to
    bounds [S, 2]."""
    chunk, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    sequences = tl.num_programs(1)
    warmth = tl.load(temperature + row)
    if warmth > 0:
        scale = exponent_scale(warmth)
        peak, mass = tl.load(facts + 2 * row), tl.load(facts + 2 * row + 1)
        tokens, share, weight = limits(top_k, top_p, min_p, filters, row, mass, VOCAB)
        level = sequences * chunks * EDGES
        low, high, number = bracket(
            edges + sequences * EDGES, counts + level, masses + level, row, chunks, peak, scale,
            tokens, share, weight, CHUNKS, EDGES,
        )  # fmt: skip
        if chunk == 0:
            tl.store(bounds + 2 * row, low)
            tl.store(bounds + 2 * row + 1, high)
        others = tl.arange(0, CHUNKS)
        theirs = counts + level + (row * chunks + others) * EDGES + number
        to_high = tl.load(theirs, mask=others < chunks, other=0)
        to_low = tl.load(theirs + 1, mask=others < chunks, other=0)
        start = tl.sum(tl.where(others < chunk, to_low - to_high, 0), 0)
        mine = row * chunks + chunk
        above = level + mine * EDGES + number
        tl.store(count_above + mine, tl.load(counts + above))
        tl.store(mass_above + mine, tl.load(masses + above))
        inside = tl.load(counts + above + 1) - tl.load(counts + above)
        if chunk == chunks - 1:
            tl.store(many + row, start + inside)
        if inside > 0:
            token = chunk * CHUNK + tl.arange(0, CHUNK)
            place = logits + row * row_stride + token
            key = ordered(tl.load(place, mask=token < VOCAB, other=-INFINITY))
            chosen = (key > low) & (key <= high)
            rank = start + tl.cumsum(chosen.to(tl.int32), 0) - 1
            tl.store(found + row * VOCAB + rank, token, mask=chosen)


@triton.jit
def invert(
    logits, mass, uniform, peak, scale, cut, last,
    VOCAB: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """The token at which the kept mass, by rising id, passes `uniform` of its sum.

    mass [CHUNKS]: what is kept of each chunk. Kept is what is above the key `cut`, and what is
    equal to it up to the token `last`. Rounding never carries the draw to a token that is cut.
    """
    wide = mass.to(tl.float64)
    target = uniform.to(tl.float64) * tl.sum(wide, 0)
    chunks = tl.arange(0, CHUNKS)
    possible = mass > NO_CHANCE
    end = tl.max(tl.where(possible, chunks, 0), 0)
    passed = possible & (tl.cumsum(wide, 0) > target)
    chunk = tl.min(tl.where(passed, chunks, end), 0)
    before = tl.sum(tl.where(chunks < chunk, wide, 0.0), 0)
    token = chunk * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(logits + token, mask=token < VOCAB, other=-INFINITY)
    key = ordered(x)
    kept = (key > cut) | ((key == cut) & (token <= last))
    w = tl.where(kept, tl.exp2((x - peak) * scale), 0.0)
    possible = w > 0
    end = tl.max(tl.where(possible, token, 0), 0)
    passed = possible & (before + tl.cumsum(w.to(tl.float64), 0) > target)
    return tl.min(tl.where(passed, token, end), 0)


@triton.jit
def draw_kernel(
    logits, temperature, uniform, best, total, drawn, row_stride, chunks,
    VOCAB: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """One program a row, where nothing is filtered."""
    row = tl.program_id(0).to(tl.int64)
    warmth = tl.load(temperature + row)
    scale = exponent_scale(warmth)
    rank, peak, masses = merged(best, total, row, chunks, scale, CHUNKS)
    token = rank_token(rank)
    if warmth > 0:
        u = tl.load(uniform + row)
        token = 0
        if tl.abs(unordered(rank_key(rank))) < INFINITY:  # else there are no probabilities
            token = invert(
                logits + row * row_stride, masses, u, peak, scale, LOWEST, -1, VOCAB, CHUNK, CHUNKS
            )
    tl.store(drawn + row, token.to(tl.int64))


@triton.jit
def above(logits, found, start, many, key, peak, scale, BLOCK: tl.constexpr):
    """How many of the found tokens [start, many) are above a key, and their mass."""
    count, mass = 0, 0.0
    for first in range(start, many, BLOCK):
        place = first + tl.arange(0, BLOCK)
        token = tl.load(found + place, mask=place < many, other=0)
        x = tl.load(logits + token, mask=place < many, other=-INFINITY)
        higher = ordered(x) > key
        count += tl.sum(higher.to(tl.int32), 0)
        mass += tl.sum(tl.where(higher, tl.exp2((x - peak) * scale), 0.0), 0)
    return count, mass


@triton.jit
def last_tie(logits, found, many, cut, ties, VOCAB: tl.constexpr, BLOCK: tl.constexpr):
    """The token of number `ties` among those at the cut; VOCAB if there are no more than that."""
    seen, last = 0, 0
    for first in range(0, many, BLOCK):
        place = first + tl.arange(0, BLOCK)
        token = tl.load(found + place, mask=place < many, other=0)
        x = tl.load(logits + token, mask=place < many, other=-INFINITY)
        tie = (place < many) & (ordered(x) == cut)
        number = seen + tl.cumsum(tie.to(tl.int32), 0)
        last = tl.maximum(last, tl.max(tl.where(tie & (number <= ties), token, 0), 0))
        seen += tl.sum(tie.to(tl.int32), 0)
    return tl.where(seen > ties, last, VOCAB)


@triton.jit
def kept_of_chunks(
    logits, found, many, cut, last, peak, scale,
    CHUNK: tl.constexpr, CHUNKS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """The mass of the kept among the found tokens, chunk by chunk [CHUNKS]."""
    mass = tl.zeros((CHUNKS,), tl.float32)
    for first in range(0, many, PART):
        place = first + tl.arange(0, PART)
        token = tl.load(found + place, mask=place < many, other=0)
        x = tl.load(logits + token, mask=place < many, other=-INFINITY)
        key = ordered(x)
        kept = (key > cut) | ((key == cut) & (token <= last))
        w = tl.where(kept, tl.exp2((x - peak) * scale), 0.0)
        of = (token // CHUNK)[:, None] == tl.arange(0, CHUNKS)[None, :]
        mass += tl.sum(tl.where(of, w[:, None], 0.0), 0)
    return mass


@triton.jit(do_not_specialize=["filters"])
def cut_kernel(
    logits, temperature, uniform, top_k, top_p, min_p, filters, best, facts, bounds, found, many,
    count_above, mass_above, drawn, row_stride, chunks,
    VOCAB: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
    PART: tl.constexpr,
):  # fmt: skip
    """One program a row: the cut to the bit, then the draw."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    found += row * VOCAB
    warmth = tl.load(temperature + row)
    chunk = tl.arange(0, CHUNKS)
    place = row * chunks + chunk
    rank = tl.max(tl.load(best + place, mask=chunk < chunks, other=LEAST_RANK), 0)
    token = rank_token(rank)
    if warmth > 0:
        token = 0
        if tl.abs(unordered(rank_key(rank))) < INFINITY:  # else there are no probabilities
            u, scale = tl.load(uniform + row), exponent_scale(warmth)
            peak, mass = tl.load(facts + 2 * row), tl.load(facts + 2 * row + 1)
            tokens, share, weight = limits(top_k, top_p, min_p, filters, row, mass, VOCAB)
            low, high = tl.load(bounds + 2 * row), tl.load(bounds + 2 * row + 1)
            masses = tl.load(mass_above + place, mask=chunk < chunks, other=0.0)
            base_mass = tl.sum(masses, 0)
            base = tl.sum(tl.load(count_above + place, mask=chunk < chunks, other=0), 0)
            size = tl.load(many + row)
            # Usually all of them fit one block, which is read once.
            near = tl.arange(0, BLOCK)
            ids = tl.load(found + near, mask=near < size, other=0)
            x = tl.load(logits + ids, mask=near < size, other=-INFINITY)
            key, w = ordered(x), tl.exp2((x - peak) * scale)
            count, mass = base, base_mass
            while (low + 1 < high) & (size > 0):
                middle = (low & high) + ((low ^ high) >> 1)
                higher = key > middle
                far_count, far_mass = above(logits, found, BLOCK, size, middle, peak, scale, BLOCK)
                count = base + tl.sum(higher.to(tl.int32), 0) + far_count
                mass = base_mass + tl.sum(tl.where(higher, w, 0.0), 0) + far_mass
                likely = tl.exp2((unordered(middle) - peak) * scale) >= weight
                kept = (count < tokens) & (mass < share) & likely
                high = tl.where(kept, middle, high)
                low = tl.where(kept, low, middle)
            far_count, far_mass = above(logits, found, BLOCK, size, high, peak, scale, BLOCK)
            count = base + tl.sum((key > high).to(tl.int32), 0) + far_count
            mass = base_mass + tl.sum(tl.where(key > high, w, 0.0), 0) + far_mass
            each = tl.maximum(tl.exp2((unordered(high) - peak) * scale), SMALL)
            ties = tl.minimum(tl.ceil((share - mass) / each), VOCAB).to(tl.int32)
            ties = tl.maximum(tl.minimum(ties, tokens - count), 1)
            last = last_tie(logits, found, size, high, ties, VOCAB, BLOCK)
            masses += kept_of_chunks(
                logits, found, size, high, last, peak, scale, CHUNK, CHUNKS, PART
            )
            token = invert(logits, masses, u, peak, scale, high, last, VOCAB, CHUNK, CHUNKS)
    tl.store(drawn + row, token.to(tl.int64))
