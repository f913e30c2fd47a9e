"""torch's own operations on a GPU, by name: there they are a choice, not a lack.

They serve where no kernel of ours is compiled for the device.
"""

from __future__ import annotations

import torch

from inarch.hal.op import Facts, Kernel
from inarch.hal.ops import OPS
from inarch.hal.reference.linear import ReferenceLinear
from inarch.hal.support import Support, no, yes

BEHIND = 2.0  # the cost of what serves only where nothing better is there
FAST_IN_TORCH = ("greedy", "penalize", "count_tokens", "add_bias", "logprobs")


def torch_kernels(library: str) -> list[Kernel]:
    """library: what torch multiplies by on this device ("cublas")."""

    def supports_product(facts: Facts) -> Support:
        """From the weight as it is stored."""
        if facts["dtype"] not in (torch.bfloat16, torch.float16, torch.float32):
            return no(f"{facts['dtype']} products are not {library}'s through torch")
        return yes()

    return [
        Kernel("linear", library, ReferenceLinear, supports_product),
        *(Kernel(name, "torch", OPS[name].reference, supports_torch) for name in FAST_IN_TORCH),
        Kernel("sample", "torch", OPS["sample"].reference, supports_sort),
    ]


def supports_torch(facts: Facts) -> Support:
    return yes(cost=BEHIND)


def supports_sort(facts: Facts) -> Support:
    return yes("sorts the vocabulary where top_k, top_p or min_p is given", cost=BEHIND)
