"""Counter-based random numbers: the uniform of a token is a function of (seed, position) alone.

Philox4x32-10 of Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import numpy as np

ROUNDS = 10
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


def philox(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Four 32-bit words for each (key, counter): uint64 [N], uint64 [M] -> uint32 [N, M, 4]."""
    keys, counters = np.broadcast_arrays(keys[:, None], counters[None, :])
    k0, k1 = keys & LOW, keys >> SHIFT
    c0, c1 = counters & LOW, counters >> SHIFT
    c2 = c3 = np.zeros_like(c0)
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1 & LOW, (p0 >> SHIFT) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return np.stack((c0, c1, c2, c3), axis=-1).astype(np.uint32)


def uniforms(seeds: np.ndarray, first: int, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) for positions first .. first + count - 1: float32 [N, count].

    seeds uint64 [N]; first and count are multiples of 4.
    """
    counters = np.arange(first // 4, (first + count) // 4, dtype=np.uint64)
    words = philox(seeds, counters).reshape(len(seeds), count)
    return ((words >> np.uint32(8)) * np.float32(2.0**-24)).astype(np.float32)
