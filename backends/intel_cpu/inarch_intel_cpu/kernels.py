"""The kernel table of this backend."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from inarch.hal.op import Facts, Kernel
from inarch.hal.support import Support, no, yes
from inarch_intel_cpu.attending import attending_kernels
from inarch_intel_cpu.dtypes import TYPES
from inarch_intel_cpu.linear import NativeLinear
from inarch_intel_cpu.native import Native
from inarch_intel_cpu.quantized_linear import GROUPS, NativeQuantizedLinear


def kernels(native: Native) -> Sequence[Kernel]:
    """Named by the instructions that they are compiled for."""
    name = native.variant
    return [
        *attending_kernels(native),
        Kernel("linear", name, functools.partial(NativeLinear, native), supports_type),
        Kernel(
            "quantized_linear",
            name,
            functools.partial(NativeQuantizedLinear, native),
            supports_quantized,
        ),
    ]


def supports_type(facts: Facts) -> Support:
    if facts["dtype"] not in TYPES:
        return no(f"computes in {', '.join(map(str, TYPES))}, not in {facts['dtype']}")
    return yes()


def supports_quantized(facts: Facts) -> Support:
    if facts["bits"] not in (4, 8):
        return no(f"weights have 4 or 8 bits here, not {facts['bits']}")
    if facts["group"] not in (None, *GROUPS):
        return no(f"groups have {', '.join(map(str, GROUPS))} inputs, not {facts['group']}")
    return supports_type(facts)
