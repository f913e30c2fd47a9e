"""Tile shapes of the attention kernel: measured tables for each kind of device, with a safe default.

Nothing is tuned at start-up. `bench.py` beside this package measures the candidates on a device.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

import torch

from inarch.hal.attention import AttentionSpec
from inarch_triton.amd_tiles import amd_tile
from inarch_triton.tile import Tile

SHARED_MEMORY = {  # KiB that one program may use
    "sm_80": 163, "sm_86": 99, "sm_87": 163, "sm_89": 99, "sm_90": 227, "sm_100": 227,
    "sm_103": 227, "sm_110": 227, "sm_120": 99, "sm_121": 99, "gfx90a": 64, "gfx942": 64,
    "gfx950": 160, "gfx1100": 64,
}  # fmt: skip
LEAST_SHARED_MEMORY = 64
LEAST_DEPTH = 16  # of a product
ASYNCHRONOUS = ("sm_90", "sm_100", "sm_103")  # matrix products of 64 rows run from shared memory

# Decodes, by how many programs there are for each processor if none is cut, up to so many: keys,
# stages, waves. A program alone does not saturate the memory; which number of them at once does best
# depends on how evenly they fall on the processors. Measured on an H200 (2026-11-23) with 1 to 512
# sequences, all of 1,040 tokens and of 1,024 to 1,279, and with 1 to 64 of 2,048 to 32,768.
DECODES = {
    "sm_90": ((0.5, 64, 2, 2), (1.3, 64, 2, 4), (1.6, 64, 3, 2), (1.8, 64, 2, 2), (2, 32, 4, 2),
              (3, 64, 3, 2), (4, 64, 2, 2), (6, 64, 3, 2), (math.inf, 64, 2, 2)),
}  # fmt: skip
# The same over 8-bit pages, whose tiles are half as large: 24 to 512 such sequences.
NARROW_DECODES = {"sm_90": ((4, 64, 3, 2), (math.inf, 64, 4, 2))}
WIDE = 128  # features of a head, beyond which two warps are slow for lack of registers


# Of sequences with many query tokens, where the kernel written for the device applies (`_is_plain`).
# Measured on an H200 (2026-11-22): 0.57 to 0.95 of the time of the tile in `_long_tile` for ten shapes,
# 1.04 for 64 prompts of 128 tokens, 1.05 for one of 512. With more waves than one, merging costs more
# than it gains.
SPECIALIZED = {
    "sm_90": Tile(
        rows=128, keys=128, warps=4, stages=2, waves=1, chunk=1024, descriptors=True,
        specialized=True,
    ),
}  # fmt: skip


def architecture(arch: str) -> str:
    """The entry of the tables: "sm_90a" -> "sm_90", "gfx942:sramecc+:xnack-" -> "gfx942"."""
    match = re.match(r"sm_\d+|gfx[0-9a-f]+", arch)
    return match[0] if match else arch


def choose_tile(
    arch: str,
    spec: AttentionSpec,
    page_tokens: int,
    rows: int,
    *,
    long: bool,
    stored: torch.dtype | None = None,
    crowd: float = 1.0,
    gluon: bool = False,
) -> Tile:
    """The tile for sequences with many query tokens (`long`), or with few (decode, verification).

    stored: dtype of the pages; None: the one that is computed in. crowd: programs for each processor,
    if none is cut. gluon: whether kernels in Gluon can be compiled here.
    """
    arch = architecture(arch)
    stored = stored or spec.dtype
    if long and gluon and arch in SPECIALIZED and _is_plain(spec, stored, page_tokens):
        return SPECIALIZED[arch]
    width = max(padded(spec.key_dim), padded(spec.value_dim))
    decodes = DECODES if stored == spec.dtype else NARROW_DECODES
    if arch.startswith("gfx"):
        tile = amd_tile(arch, rows, width * spec.dtype.itemsize, long=long)
    else:
        tile = (
            _long_tile(arch, rows, width)
            if long
            else _short_tile(arch, rows, width, crowd, decodes)
        )
    if stored != spec.dtype and long and arch.startswith("gfx"):
        tile = replace(tile, keys=max(16, tile.keys // 2))  # conversion takes registers
    if (spec.key_dim, spec.value_dim) != (padded(spec.key_dim), padded(spec.value_dim)):
        tile = replace(tile, descriptors=False)  # their blocks are powers of two
    tile = _fit(tile, arch, width, spec.dtype, stored, page_tokens)
    tile = replace(tile, pairs=_by_pairs(tile, arch, spec, stored))
    if tile.descriptors and padded(spec.q_heads // spec.kv_heads) <= 64:
        # Measured on an H200 (2026-11-22): 5 to 35 % faster than 128 rows by 8 warps.
        return replace(tile, rows=64, warps=4)
    return tile


def for_shared_prefixes(tile: Tile) -> Tile:
    """Of a tile for many query tokens: shorter chunks, since the tiles are few."""
    return replace(tile, waves=2, chunk=512)


def _by_pairs(tile: Tile, arch: str, spec: AttentionSpec, stored: torch.dtype) -> bool:
    """Where products read registers, which are filled from shared memory by 16 bits, or slowly."""
    from_registers = tile.rows < 64 or arch not in ASYNCHRONOUS
    narrow = stored.itemsize < spec.dtype.itemsize == 2
    wide = (
        min(spec.key_dim, spec.value_dim) > LEAST_DEPTH
    )  # half of it, padded, is a product's depth
    return arch.startswith("sm_") and from_registers and narrow and wide


def publishes(arch: str) -> bool:
    """Whether what a program has written is there for another when a counter says so.

    On AMD the barrier ahead of the counter does not wait for the stores of a program's other waves
    (seen in what Triton 3.9 compiles): there, a launch of its own takes up what programs put aside.
    """
    return not arch.startswith("gfx")


def padded(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _is_plain(spec: AttentionSpec, stored: torch.dtype, page_tokens: int) -> bool:
    """Whether it is what specialized kernels are written for."""
    return (
        spec.dtype.itemsize == 2
        and stored == spec.dtype
        and spec.key_dim == spec.value_dim
        and spec.key_dim in (64, 128)
        and page_tokens >= 64
        and (spec.window, spec.softcap, spec.sinks) == (None, None, False)
    )


def _short_tile(
    arch: str,
    rows: int,
    width: int,
    crowd: float,
    decodes: Mapping[str, tuple[tuple[float, int, int, int], ...]],
) -> Tile:
    if rows <= 16 and arch in decodes:
        keys, stages, waves = next(row[1:] for row in decodes[arch] if crowd <= row[0])
        # Measured there, too: two warps take 0.73 to 1.03 of the time that four do.
        warps = 2 if width <= WIDE else 4
        return Tile(rows, keys, warps, stages, waves, chunk=128)
    waves = 8 if rows <= 16 else 4  # what is put aside for chunks grows with the rows
    # Measured on an H200 (2026-11-22): up to 18 % faster than three stages, never 3 % slower.
    return Tile(rows, keys=64, warps=4, stages=2, waves=waves, chunk=128)


def _long_tile(arch: str, rows: int, width: int) -> Tile:
    if arch in ASYNCHRONOUS:
        return Tile(rows, keys=64, warps=8, stages=3, waves=2, chunk=1024, descriptors=True)
    keys = 64 if SHARED_MEMORY.get(arch, 0) > 99 or width <= 64 else 32
    return Tile(rows, keys, warps=8, stages=2, waves=2, chunk=1024)


def _fit(
    tile: Tile, arch: str, width: int, dtype: torch.dtype, stored: torch.dtype, page_tokens: int
) -> Tile:
    """Shrink until the tile fits the shared memory of one program."""
    limit = SHARED_MEMORY.get(arch, LEAST_SHARED_MEMORY) * 1024
    if dtype == torch.float32:
        tile = replace(tile, stages=min(tile.stages, 2))
    descriptors = tile.descriptors and tile.keys <= page_tokens and dtype.itemsize == 2
    tile = replace(tile, descriptors=descriptors)
    while shared_bytes(tile, arch, width, dtype, stored) > limit:
        if tile.stages > 2:
            tile = replace(tile, stages=tile.stages - 1)
        elif tile.keys > 16:
            tile = replace(tile, keys=tile.keys // 2)
        else:
            break
    return tile


def shared_bytes(tile: Tile, arch: str, width: int, dtype: torch.dtype, stored: torch.dtype) -> int:
    """An estimate: the stages of K and V, the weights, and queries where they are read from there.

    Pages of another dtype than the one computed in are staged as they are, and converted once more.
    """
    asynchronous = arch in ASYNCHRONOUS and tile.rows >= 64
    stages = tile.stages if asynchronous else max(tile.stages - 1, 1)
    page = tile.keys * width
    elements = tile.rows * tile.keys + (2 * page if stored != dtype else 0)
    if asynchronous:
        elements += tile.rows * width
    return elements * dtype.itemsize + 2 * stages * page * stored.itemsize


def long_rows(group: int, spec: AttentionSpec) -> int:
    """Rows of a tile of many query tokens: fewer where the accumulator would not fit registers."""
    if spec.dtype == torch.float32:
        return max(32, padded(group))
    return max(128 if padded(spec.value_dim) <= 128 else 64, padded(group))


def short_rows(group: int, tokens: int, seqs: int) -> int:
    """Rows of a tile of few query tokens: from static facts only, since captured grids stay."""
    return max(16, min(64, padded(group * -(-tokens // seqs))), padded(group))
