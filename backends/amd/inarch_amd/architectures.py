"""The kinds of AMD GPU that kernels are compiled for, and what differs between them."""

from __future__ import annotations

from dataclasses import dataclass

from inarch.hal.support import Support, no, yes


@dataclass(frozen=True)
class Architecture:
    """Facts of one arch: AMD's instruction set manuals of CDNA 2 to 4 and RDNA 3."""

    products: str  # what is sold with it
    lanes: int  # of a wave
    units: str  # what multiplies 16-bit matrices
    blas: str  # what torch multiplies by
    exact: str  # what is said of float32


MATRIX = "exact, on matrix cores; many times slower, twice the memory"
ARCHITECTURES = {
    "gfx90a": Architecture("Instinct MI210 to MI250X", 64, "matrix cores", "hipblaslt", MATRIX),
    "gfx942": Architecture("Instinct MI300A, MI300X, MI325X", 64, "matrix cores", "hipblaslt", MATRIX),
    "gfx950": Architecture("Instinct MI350X, MI355X", 64, "matrix cores", "hipblaslt", MATRIX),
    "gfx1100": Architecture(
        "Radeon RX 7900, Pro W7900", 32, "WMMA", "rocblas",
        "exact, without WMMA: many times slower, twice the memory",
    ),
}  # fmt: skip


def family(arch: str) -> str:
    """ "gfx942:sramecc+:xnack-" -> "gfx942"."""
    return arch.partition(":")[0]


def known(arch: str) -> Support:
    """Whether kernels are compiled for `arch` ("gfx942:sramecc+:xnack-")."""
    if family(arch) in ARCHITECTURES:
        return yes()
    listed = ", ".join(f"{name} ({facts.products})" for name, facts in ARCHITECTURES.items())
    return no(f"{family(arch)} is none of {listed}, for which the kernels are compiled")
