"""The kernel table of this backend."""

from __future__ import annotations

from collections.abc import Sequence

from inarch.hal.op import Kernel
from inarch_intel_cpu.native import Native


def kernels(native: Native) -> Sequence[Kernel]:
    return []
