"""Normalisations. Letters in shapes: T tokens, N features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.op import op


@op()
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis; computed in float32, returned in x's dtype.

    x [..., N], weight [N] in x's dtype, or in float32: the quotient is rounded to the weight's dtype
    before the product. Source: Zhang and Sennrich, 2019, arXiv:1910.07467.
    """
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return ((wide * scale).to(weight.dtype) * weight).to(x.dtype)


@op(parts=[rms_norm])
def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, rms_norm: object = rms_norm
) -> tuple[Tensor, Tensor]:
    """Add x to the residual stream and normalise the sum: (normed, new residual).

    x, residual [T, N], weight [N]. Both inputs are dead afterwards: a kernel may reuse their memory.
    """
    residual = residual + x
    return rms_norm(residual, weight, eps), residual  # type: ignore[operator]


@op()
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis, in x's dtype.

    x [..., N], weight, bias [N]. Source: Ba et al., 2016, arXiv:1607.06450.
    """
    own = None if bias is None else bias.float()
    return F.layer_norm(x.float(), weight.shape, weight.float(), own, eps).to(x.dtype)


@op(parts=[layer_norm])
def add_layer_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    *,
    layer_norm: object = layer_norm,
) -> tuple[Tensor, Tensor]:
    """As `add_rms_norm`, with `layer_norm`: x, residual [T, N]; weight, bias [N]."""
    residual = residual + x
    return layer_norm(residual, weight, bias, eps), residual  # type: ignore[operator]
