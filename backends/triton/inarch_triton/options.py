"""What every launch tells Triton's compiler."""

from __future__ import annotations

import re

# Multiply and add in one instruction: said here because the default differs between versions.
FUSED = {"enable_fp_fusion": True}


def pdl(arch: str) -> bool:
    """Whether a kernel may start before the one ahead of it has ended (programmatic dependent launch).

    Whoever launches with it calls `gdc_wait` in every program, before it touches anything that
    another kernel writes or reads: then the end of a kernel is the end of all before it.
    """
    found = re.match(r"sm_(\d+)", arch)
    return found is not None and int(found[1]) >= 90
