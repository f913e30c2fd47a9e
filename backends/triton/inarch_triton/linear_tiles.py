"""Tile shapes of the linear kernel, and up to how many tokens it serves: measured, safe by default.

Nothing is tuned at start-up. `bench_linear.py` beside this package measures the candidates on a device.
"""

from __future__ import annotations

from dataclasses import dataclass

from inarch_triton.options import pdl
from inarch_triton.tiles import LEAST_SHARED_MEMORY, SHARED_MEMORY, architecture

SIZES = (16, 32, 64)  # tokens of a tile; what is between them is padded
UNMEASURED = 16  # tokens up to which the kernel serves where nobody has compared it
ITEM = 2  # bytes of an element
STEPS = 4  # the least blocks of K that a program is worth starting for


@dataclass(frozen=True)
class LinearTile:
    """How one program works: on `rows` outputs, `depth` inputs at a time, for up to `tokens` tokens.

    K is cut into `splits` shares, which programs of their own add up. Without splits at most
    `resident` programs for each processor of the device walk over all tiles; 0: one for each tile.
    """

    rows: int
    depth: int
    tokens: int
    warps: int
    stages: int
    splits: int = 1
    resident: int = 0
    prefetch: int = 0  # bytes of each row asked for before the kernel ahead has ended
    descriptors: bool = False  # load the weight with the copy engine


def linear_tiles(arch: str, processors: int, outputs: int, inputs: int) -> tuple[LinearTile, ...]:
    """The tiles of a weight [N, K], fewest tokens first; torch's product serves any more tokens."""
    if inputs % 16:
        return ()  # its rows cannot be loaded in 16 bytes at a time
    most = 64 if architecture(arch) == "sm_90" else UNMEASURED
    return tuple(
        _spread(_shape(architecture(arch), tokens), arch, processors, outputs, inputs)
        for tokens in SIZES
        if tokens <= most
    )


def _shape(arch: str, tokens: int) -> LinearTile:
    if arch.startswith("gfx"):
        return LinearTile(rows=64, depth=128, tokens=tokens, warps=4, stages=2)
    rows, depth = (64, 128) if tokens <= 32 else (128, 64)
    limit = SHARED_MEMORY.get(arch, LEAST_SHARED_MEMORY) * 1024 // 2  # two programs at a time
    stages = min(4, limit // ((rows + tokens) * depth * ITEM))
    return LinearTile(rows, depth, tokens, warps=4, stages=max(2, stages))


def _spread(tile: LinearTile, arch: str, processors: int, outputs: int, inputs: int) -> LinearTile:
    """Split K until there are up to two programs for each processor."""
    tiles, blocks = -(-outputs // tile.rows), -(-inputs // tile.depth)
    splits = 1
    while tiles * splits <= processors and blocks >= 2 * splits * STEPS:
        splits *= 2
    share = -(-blocks // splits) * tile.depth * ITEM
    prefetch = 512 if pdl(arch) and share >= 512 and inputs * ITEM >= 512 else 0
    return LinearTile(
        tile.rows, tile.depth, tile.tokens, tile.warps, tile.stages, splits,
        resident=2 if splits == 1 else 0, prefetch=prefetch,
    )  # fmt: skip


def shared_bytes(tile: LinearTile) -> int:
    """An estimate: what the stages hold of the weight and of x."""
    return tile.stages * (tile.rows + tile.tokens) * tile.depth * ITEM
