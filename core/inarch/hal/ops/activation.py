"""Activations of the feed-forward layers. Letters in shapes: T tokens, N features."""

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
def gelu_exact_mul(x: Tensor) -> Tensor:
    """gelu(gate) * up with the exact gelu, x [T, 2N] as in `silu_mul`: [T, N]."""
    gate, up = x.chunk(2, dim=-1)
    return F.gelu(gate) * up


@op()
def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x), x [T, N]."""
    return F.silu(x)


@op()
def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution's cumulative function at x, x [T, N]."""
    return F.gelu(x)


@op()
def gelu_tanh(x: Tensor) -> Tensor:
    """`gelu` in its tanh approximation, x [T, N]. Source: Hendrycks and Gimpel, arXiv:1606.08415."""
    return F.gelu(x, approximate="tanh")


@op()
def relu(x: Tensor) -> Tensor:
    """max(x, 0), x [T, N]."""
    return F.relu(x)


@op()
def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)^2, x [T, N]. Source: So et al., 2021, arXiv:2109.08668."""
    return F.relu(x).square()


@op()
def xielu(x: Tensor, alpha_p: Tensor, alpha_n: Tensor, beta: Tensor, eps: Tensor) -> Tensor:
    """A parabola above zero, an exponential below: x [T, N]; alphas [1] before their softplus.

    p x^2 + b x above zero, n (exp(min(x, eps)) - 1 - x) + b x below, where b is beta [1], the slope
    at zero, p is softplus(alpha_p) and n is b + softplus(alpha_n). Source: Huang and Schlag, 2024,
    arXiv:2411.13010.
    """
    wide, slope = x.float(), beta.float()
    above, below = F.softplus(alpha_p.float()), slope + F.softplus(alpha_n.float())
    curve = below * (torch.expm1(torch.minimum(wide, eps.float())) - wide)
    return (slope * wide + torch.where(wide > 0, above * wide.square(), curve)).to(x.dtype)


@op()
def clamped_swiglu(x: Tensor, *, alpha: float, limit: float) -> Tensor:
    """gate * sigmoid(alpha * gate) * (up + 1), x [T, 2N] as in `silu_mul`: [T, N].

    Before that, gate is cut off above limit, and up above limit and below -limit (gpt-oss).
    """
    gate, up = x.chunk(2, dim=-1)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)
