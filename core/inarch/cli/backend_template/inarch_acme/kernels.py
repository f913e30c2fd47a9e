"""Kernels of ops, and the conditions under which each applies.

What an op means, with shapes, dtypes and tolerance, is its reference in inarch.hal.ops.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.op import Facts
from inarch.hal.support import Support, no, yes

MOST_FEATURES = 1 << 16


def supports_rms_norm(facts: Facts) -> Support:
    """Asked once for each layer when a model is loaded: yes, or no and why."""
    if facts["dtype"] not in (torch.float32, torch.bfloat16):
        return no(f"rows of {facts['dtype']}: float32 and bfloat16 are what it takes")
    if facts["weight_dtype"] != facts["dtype"]:
        return no(f"a weight of {facts['weight_dtype']} for rows of {facts['dtype']}")
    if facts["hidden"] > MOST_FEATURES:
        return no(f"{facts['hidden']} features, more than {MOST_FEATURES}")
    return yes()


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As inarch.hal.ops.norm.rms_norm, in one call; computed in float32."""
    return F.rms_norm(x.float(), weight.shape, weight.float(), eps).to(x.dtype)
