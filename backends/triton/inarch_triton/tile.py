"""What a tile of the attention kernel is; tiles.py and amd_tiles.py have those of each device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """How one program works: on `rows` pairs of token and head, `keys` keys at a time.

    A run of keys is cut into chunks, which programs of their own attend to, until there are `waves`
    programs for each processor of the device; no chunk is shorter than `chunk` keys.
    """

    rows: int
    keys: int
    warps: int
    stages: int
    waves: int
    chunk: int
    descriptors: bool = False  # load pages with the copy engine; needs keys <= page_tokens
    specialized: bool = False  # warps that load and warps that compute: see hopper_kernel.py
    pairs: bool = False  # two 8-bit floats at a time, each of which goes to a product of its own
    resident: int = (
        0  # on AMD: waves on a SIMD that registers must suffice for; 0: the compiler's choice
    )
    matrix: int = 0  # on AMD: rows and columns of a matrix instruction; 0: the compiler's choice

    def options(self) -> dict[str, int]:
        """What the compiler is told of it."""
        told = {"waves_per_eu": self.resident, "matrix_instr_nonkdim": self.matrix}
        chosen = {name: value for name, value in told.items() if value}
        return {"num_warps": self.warps, "num_stages": self.stages, **chosen}
