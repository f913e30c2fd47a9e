"""Tile shapes of the linear kernel, and up to how many tokens it serves: measured, safe by default.

Nothing is tuned at start-up. `bench_linear.py` beside this package measures the candidates on a device.
"""

from __future__ import annotations

from dataclasses import dataclass

from inarch_triton.tiles import LEAST_SHARED_MEMORY, SHARED_MEMORY, architecture, publishes

SIZES = (16, 32, 64)  # tokens of a tile; what is between them is padded
UNMEASURED = 16  # tokens up to which the kernel serves where nobody has compared it
ITEM = 2  # bytes of an element
MOST_STAGES = 6
LEAST_BLOCKS = 4  # of K, that a program is worth starting for


@dataclass(frozen=True)
class LinearTile:
    """How one program works: on `rows` outputs, `depth` inputs at a time, for up to `tokens` tokens.

    K is cut into `splits` shares, which programs of their own add up.
    """

    rows: int
    depth: int
    tokens: int
    warps: int
    stages: int
    splits: int = 1


def linear_tiles(arch: str, processors: int, outputs: int, inputs: int) -> tuple[LinearTile, ...]:
    """The tiles of a weight [N, K], fewest tokens first; torch's product serves any more tokens."""
    if inputs % 16:
        return ()  # its rows cannot be loaded in 16 bytes at a time
    arch = architecture(arch)
    sizes = SIZES if arch == "sm_90" else (UNMEASURED,)
    tiles = tuple(_tile(arch, tokens, processors, outputs, inputs) for tokens in sizes)
    # Without shares, few programs would leave most of the device idle.
    return tiles if publishes(arch) else tuple(tile for tile in tiles if tile.splits == 1)


def _tile(arch: str, tokens: int, processors: int, outputs: int, inputs: int) -> LinearTile:
    """One program with a deep pipeline on each processor; two where there are more tiles than those.

    Measured on an H200 (2026-11-22), in chains of whole layers: splitting K further, so that two or
    three programs share a processor, cost up to 2 % of a layer. With 128 tokens no tile that was
    tried reached torch's product.
    """
    rows, depth = 64, 128
    tiles, blocks = -(-outputs // rows), -(-inputs // depth)
    splits = 1
    while 2 * splits * tiles <= processors and blocks >= 2 * splits * LEAST_BLOCKS:
        splits *= 2
    if arch.startswith("gfx"):
        return LinearTile(rows, depth, tokens, warps=4, stages=2, splits=splits)
    resident = 1 if splits * tiles <= processors else 2
    room = SHARED_MEMORY.get(arch, LEAST_SHARED_MEMORY) * 1024 // resident
    stages = max(2, min(MOST_STAGES, room // ((rows + tokens) * depth * ITEM)))
    return LinearTile(rows, depth, tokens, warps=4, stages=stages, splits=splits)
