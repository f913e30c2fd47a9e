"""Normalisations. Letters in shapes: T tokens, N features."""

from __future__ import annotations

import torch
from torch import Tensor

from inarch.hal.op import op


@op()
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis; computed in float32, returned in x's dtype.

    x [..., N], weight [N]. Source: Zhang and Sennrich, 2019, arXiv:1910.07467.
    """
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype) * weight


@op(parts=[rms_norm])
def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, rms_norm: object = rms_norm
) -> tuple[Tensor, Tensor]:
    """Add x to the residual stream and normalise the sum: (normed, new residual).

    x, residual [T, N], weight [N]. Both inputs are dead afterwards: a kernel may reuse their memory.
    """
    residual = residual + x
    return rms_norm(residual, weight, eps), residual  # type: ignore[operator]
