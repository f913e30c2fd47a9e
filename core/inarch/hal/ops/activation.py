"""Gated activations of the feed-forward layers. Letters in shapes: T tokens, N features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.op import op


@op()
def silu_mul(x: Tensor) -> Tensor:
    """silu(gate) * up, where x [T, 2N] holds gate in its first half and up in its second: [T, N]."""
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


@op()
def gelu_mul(x: Tensor) -> Tensor:
    """gelu(gate) * up with the tanh approximation, x [T, 2N] as in `silu_mul`: [T, N]."""
    gate, up = x.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


@op()
def clamped_swiglu(x: Tensor, *, alpha: float, limit: float) -> Tensor:
    """gate * sigmoid(alpha * gate) * (up + 1), x [T, 2N] as in `silu_mul`: [T, N].

    Before that, gate is cut off above limit, and up above limit and below -limit (gpt-oss).
    """
    gate, up = x.chunk(2, dim=-1)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)
