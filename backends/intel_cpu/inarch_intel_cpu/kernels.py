"""The kernel table of this backend."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from inarch.hal.op import Facts, Kernel
from inarch.hal.support import Support, no, yes
from inarch_intel_cpu.attending import attending_kernels
from inarch_intel_cpu.dtypes import TYPES
from inarch_intel_cpu.experts import ACTIVATIONS, NativeExperts, NativeGroupedLinear
from inarch_intel_cpu.linear import NativeLinear
from inarch_intel_cpu.native import Native
from inarch_intel_cpu.quantized_linear import GROUPS, NativeQuantizedLinear
from inarch_intel_cpu.recurrent import Recurrent
from inarch_intel_cpu.routing import Routing


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
        *expert_kernels(native),
        *recurrent_kernels(native),
    ]


def expert_kernels(native: Native) -> list[Kernel]:
    name, routing = native.variant, Routing(native)
    whole = functools.partial(NativeExperts, native)
    grouped = functools.partial(NativeGroupedLinear, native)
    return [
        Kernel("experts", name, whole, supports_experts),
        Kernel("quantized_experts", name, whole, supports_quantized_experts),
        Kernel("grouped_linear", name, grouped, supports_type),
        Kernel("quantized_grouped_linear", name, grouped, supports_quantized),
        Kernel("route", name, routing.route, supports_type),
        Kernel("sparse_mixer", name, routing.sparse_mixer, supports_type),
    ]


def recurrent_kernels(native: Native) -> list[Kernel]:
    recurrent = Recurrent(native)
    ops = ("causal_conv", "gated_delta_rule", "state_space_scan", "gated_rms_norm")
    return [Kernel(op, native.variant, getattr(recurrent, op), supports_type) for op in ops]


def supports_type(facts: Facts) -> Support:
    if facts["dtype"] not in TYPES:
        return no(f"computes in {', '.join(map(str, TYPES))}, not in {facts['dtype']}")
    return yes()


def supports_experts(facts: Facts) -> Support:
    if facts["activation"] not in ACTIVATIONS:
        return no(f"activations are {', '.join(ACTIVATIONS)}, not {facts['activation']}")
    return supports_type(facts)


def supports_quantized_experts(facts: Facts) -> Support:
    return supports_experts(facts) and supports_quantized(facts)


def supports_quantized(facts: Facts) -> Support:
    if facts["bits"] not in (4, 8):
        return no(f"weights have 4 or 8 bits here, not {facts['bits']}")
    if facts["group"] not in (None, *GROUPS):
        return no(f"groups have {', '.join(map(str, GROUPS))} inputs, not {facts['group']}")
    return supports_type(facts)
