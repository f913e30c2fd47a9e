"""Floats as integers of the same order, for searching and for picking the first of the highest."""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import triton
import triton.language as tl

LOWEST = tl.constexpr(-2139095040)  # the key of -inf
LARGEST = tl.constexpr(0x7FFFFFFF)


@triton.jit
def ordered(x):
    """float32 -> int32 keys of the same order: both zeros are alike, NaN is above everything."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(x != x, LARGEST, tl.where(bits < 0, -(bits & LARGEST), bits))


@triton.jit
def unordered(key):
    """The float32 of a key."""
    size = tl.where(key < 0, -key, key).to(tl.float32, bitcast=True)
    return tl.where(key < 0, -size, size)


@triton.jit
def ranked(x, token):
    """int64 that are all different: higher for a higher x, and for a lower token where x is equal."""
    return (ordered(x).to(tl.int64) << 32) | (token ^ LARGEST).to(tl.int64)


@triton.jit
def rank_key(rank):
    return (rank >> 32).to(tl.int32)


@triton.jit
def rank_token(rank):
    return (rank & LARGEST).to(tl.int32) ^ LARGEST
