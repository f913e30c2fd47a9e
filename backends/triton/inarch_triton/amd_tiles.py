"""Tile shapes of the attention kernel on AMD GPUs: what compiles without spills. Not measured yet.

What they follow from: a wave has 64 lanes on gfx9 and 32 on gfx1100, so that 4 waves hold twice the
rows' registers on gfx9; a stage beyond the one that is computed with takes local memory (LDS), of which
there are 64 KiB, on gfx950 160; loads reach LDS through registers, on gfx950 alone past them; there are
no tensor descriptors. The tests of backends/amd read registers, spills and LDS from the compiled code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from inarch_triton.tile import Tile

WIDEST = 256  # bytes: head size 128 in 16 bits


@dataclass(frozen=True)
class AmdTiles:
    """Tiles of few query tokens and of many, for rows of up to WIDEST bytes; keys beyond these."""

    short: Tile
    long: Tile
    wide_keys: int = (
        16  # of a tile of many query tokens: K and V of 32 keys would not fit registers
    )


# 16x16 matrix instructions: decodes have 16 rows, and AMD's guide to tuning Triton on the MI300X prefers
# them to 32x32 elsewhere. Decodes want four waves on each SIMD to cover the memory's latency (at most 128
# of its 512 registers for each); prompts have work of their own to cover it with, and two.
CDNA = AmdTiles(
    short=Tile(rows=16, keys=32, warps=4, stages=2, waves=8, chunk=128, resident=4, matrix=16),
    long=Tile(rows=128, keys=32, warps=4, stages=2, waves=2, chunk=1024, resident=2, matrix=16),
)
AMD: Mapping[str, AmdTiles] = {
    "gfx90a": CDNA,
    "gfx942": CDNA,
    "gfx950": CDNA,
    # 256 registers are all that a wave can address, and WMMA wants each row twice: 32 keys at a time
    # spill, as do 64 rows by 4 waves or 128 rows; so does a second stage of prompts.
    "gfx1100": AmdTiles(
        short=Tile(rows=16, keys=16, warps=4, stages=2, waves=8, chunk=128),
        long=Tile(rows=64, keys=16, warps=8, stages=1, waves=2, chunk=1024),
    ),
}


def amd_tile(arch: str, rows: int, row_bytes: int, *, long: bool) -> Tile:
    """rows: those that few query tokens need, or that many may have; row_bytes: of a head's features."""
    table = AMD.get(arch, CDNA)
    if long:
        keys = table.long.keys if row_bytes <= WIDEST else table.wide_keys
        return replace(table.long, rows=min(rows, table.long.rows), keys=keys)
    if rows > table.long.rows // 2:
        return replace(table.long, rows=rows, waves=4, chunk=table.short.chunk)
    if rows <= 16 and row_bytes <= WIDEST:
        return replace(table.short, rows=rows)
    # What is put aside for chunks grows with the rows, and so do registers.
    waves = table.short.waves if rows <= 16 else 4
    return replace(table.short, rows=rows, waves=waves, resident=table.short.resident // 2)
