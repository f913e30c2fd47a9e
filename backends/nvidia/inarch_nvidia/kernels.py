"""The kernel table of an NVIDIA GPU: Triton's kernels, cuBLAS, and torch's own where that is fast.

torch's CUDA operations are listed by name because on this device they are a choice, not a lack:
what serves where no kernel of ours is compiled for the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inarch.hal.op import Facts, Kernel
from inarch.hal.ops import OPS
from inarch.hal.reference.linear import ReferenceLinear
from inarch.hal.support import Support, no, yes
from inarch_triton.kernels import kernels as triton_kernels

BEHIND = 2.0  # the cost of what serves only where nothing better is there


def kernels(arch: str) -> Sequence[Kernel]:
    """arch: "sm_90" and the like."""
    return [
        *triton_kernels(arch),
        Kernel("linear", "cublas", ReferenceLinear, supports_cublas),
        *(Kernel(name, "torch", OPS[name].reference, supports_torch) for name in FAST_IN_TORCH),
        Kernel("sample", "torch", OPS["sample"].reference, supports_sort),
    ]


FAST_IN_TORCH = ("greedy", "penalize", "count_tokens", "add_bias", "logprobs")


def supports_cublas(facts: Facts) -> Support:
    """torch multiplies by cuBLASLt, from the weight as it is stored."""
    if facts["dtype"] not in (torch.bfloat16, torch.float16, torch.float32):
        return no(f"{facts['dtype']} products are not cuBLAS's through torch")
    return yes()


def supports_torch(facts: Facts) -> Support:
    return yes(cost=BEHIND)


def supports_sort(facts: Facts) -> Support:
    return yes("sorts the vocabulary where top_k, top_p or min_p is given", cost=BEHIND)
