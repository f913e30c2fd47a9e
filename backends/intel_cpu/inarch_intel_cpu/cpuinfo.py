"""What /proc/cpuinfo says: the processors, their instructions, and the fastest kernels for them."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

# What kernels are compiled for, fastest first, and the flags that each of them needs.
VARIANTS = {
    "amx": ("amx_tile", "amx_bf16", "amx_int8"),
    "avx512_bf16": ("avx512_bf16",),
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"),
    "avx2": ("avx2", "fma", "f16c", "bmi2"),
}
INTEL = "GenuineIntel"  # whose cores take longer for pairs of bfloat16 than for float32
FORCE = "INARCH_INTEL_CPU_ISA"  # takes a lower one: for tests and comparisons

# Linux lets a process use tiles once it has asked, and grants it only if the system saves them with the
# rest of a thread's state (XCR0): arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA), since 5.16.
ARCH_PRCTL, REQUEST, TILE_DATA = 158, 0x1023, 18


def processors(root: Path = Path("/")) -> list[dict[str, str]]:
    """The fields of each logical processor; empty where there is no such file."""
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return []
    blocks = (block.splitlines() for block in text.strip().split("\n\n"))
    pairs = ([line.partition(":") for line in block] for block in blocks)
    return [{key.strip(): value.strip() for key, _, value in block} for block in pairs]


def variants(flags: frozenset[str], vendor: str = "") -> tuple[str, ...]:
    """The variants that a processor with these flags can run, fastest first."""
    found, needed = [], frozenset[str]()
    for name in reversed(VARIANTS):  # each builds on those before it
        needed |= frozenset(VARIANTS[name])
        if needed <= flags:
            found.insert(0, name)
    if vendor == INTEL and "avx512_bf16" in found:  # see README.md
        found.remove("avx512_bf16")
        found.insert(found.index("avx512") + 1, "avx512_bf16")
    return tuple(found)


@functools.cache
def permitted(variant: str) -> bool:
    """Whether the system lets this process, and the threads it has, use the variant's registers."""
    if variant != "amx":
        return True
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST, TILE_DATA) == 0


def flags_of(processor: dict[str, str]) -> frozenset[str]:
    return frozenset(processor.get("flags", "").split())
