"""The door by which this backend comes into Inarch."""

from __future__ import annotations

from collections.abc import Sequence

from inarch.hal.backend import Backend
from inarch.hookspecs import hookimpl

INARCH_API = (1, 0)


@hookimpl
def inarch_backends() -> Sequence[Backend]:
    from inarch_intel_cpu.backend import IntelCpuBackend

    return [IntelCpuBackend()]
