"""The ops of tokens and features by our kernels: norms, activations, rotary positions.

Each function has the signature of the op it is named after (see inarch.hal.ops), and writes where its
inputs were if the op says that they are dead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch_intel_cpu.dtypes import TYPES
from inarch_intel_cpu.native import Native

KINDS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3, "relu_squared": 4}
GATED = {"silu_mul": 0, "gelu_exact_mul": 1, "gelu_mul": 2}
CLAMPED_SWIGLU = 5
WIDE = torch.float32


class Ops:
    """Every op of this file, bound to the kernels of one variant."""

    def __init__(self, native: Native) -> None:
        self._norm, self._activate = native.kernel("norm"), native.kernel("activate")
        self._rope, self._xielu = native.kernel("rope"), native.kernel("xielu")

    # ---- norms ----

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return self._normed(x.contiguous(), None, weight, None, eps, 0)

    def add_rms_norm(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        x, residual = x.contiguous(), residual.contiguous()
        return self._normed(x, residual, weight, None, eps, 0), residual

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        return self._normed(x.contiguous(), None, weight, bias, eps, 1)

    def add_layer_norm(
        self, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        x, residual = x.contiguous(), residual.contiguous()
        return self._normed(x, residual, weight, bias, eps, 1), residual

    def _normed(
        self,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        centred: int,
    ) -> Tensor:
        size = x.shape[-1]
        out = torch.empty_like(x) if residual is None else x
        self._norm(
            x, residual, weight, bias, out, x.numel() // size, size, TYPES[x.dtype],
            weight.dtype == WIDE, bias is not None and bias.dtype == WIDE, eps, centred,
        )  # fmt: skip
        return out

    # ---- activations ----

    def activation(self, name: str) -> Callable[[Tensor], Tensor]:
        gate = name in GATED
        kind, parts = (GATED[name], 2) if gate else (KINDS[name], 1)

        def activate(x: Tensor) -> Tensor:
            return self._activated(x, kind, parts, 0.0, 0.0)

        return activate

    def clamped_swiglu(self, x: Tensor, *, alpha: float, limit: float) -> Tensor:
        return self._activated(x, CLAMPED_SWIGLU, 2, alpha, limit)

    def xielu(
        self, x: Tensor, alpha_p: Tensor, alpha_n: Tensor, beta: Tensor, eps: Tensor
    ) -> Tensor:
        x = x.contiguous()
        out, slope = torch.empty_like(x), float(beta)
        above, below = (float(F.softplus(alpha.float())) for alpha in (alpha_p, alpha_n))
        numbers = (above, slope + below, slope, float(eps))
        self._xielu(x, out, x.numel(), TYPES[x.dtype], *numbers)
        return out

    def _activated(self, x: Tensor, kind: int, parts: int, alpha: float, limit: float) -> Tensor:
        x = x.contiguous()
        size = x.shape[-1] // parts
        out = x.new_empty((*x.shape[:-1], size))
        rows = out.numel() // size
        self._activate(x, out, rows, size, TYPES[x.dtype], kind, parts == 2, alpha, limit)
        return out

    # ---- rotary positions ----

    def rope(
        self,
        q: Tensor,
        k: Tensor,
        positions: Tensor,
        cos_sin: Tensor,
        *,
        interleaved: bool = False,
    ) -> tuple[Tensor, Tensor]:
        return self._turned(q, None, 0.0, positions, cos_sin, interleaved), self._turned(
            k, None, 0.0, positions, cos_sin, interleaved
        )

    def qk_norm_rope(
        self,
        q: Tensor,
        k: Tensor,
        q_weight: Tensor,
        k_weight: Tensor,
        eps: float,
        positions: Tensor,
        cos_sin: Tensor,
        *,
        interleaved: bool = False,
    ) -> tuple[Tensor, Tensor]:
        return self._turned(q, q_weight, eps, positions, cos_sin, interleaved), self._turned(
            k, k_weight, eps, positions, cos_sin, interleaved
        )

    def _turned(
        self,
        x: Tensor,
        weight: Tensor | None,
        eps: float,
        positions: Tensor,
        cos_sin: Tensor,
        interleaved: bool,
    ) -> Tensor:
        x = x if x.stride(2) == 1 else x.contiguous()
        self._rope(
            x, *x.shape, *x.stride()[:2], TYPES[x.dtype], positions, cos_sin, cos_sin.shape[1],
            interleaved, weight, weight is not None and weight.dtype == WIDE, eps,
        )  # fmt: skip
        return x
