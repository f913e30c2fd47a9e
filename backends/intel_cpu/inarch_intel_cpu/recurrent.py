"""The ops of recurrent mixers by our kernels: they write states and tails where they lie.

Each function has the signature of the op it is named after (see inarch.hal.ops).
"""

from __future__ import annotations

import torch
from torch import Tensor

from inarch_intel_cpu.dtypes import TYPES
from inarch_intel_cpu.native import Native


class Recurrent:
    """Every op of this file, bound to the kernels of one variant."""

    def __init__(self, native: Native) -> None:
        self._conv = native.kernel("causal_conv")
        self._delta, self._scan = (
            native.kernel("gated_delta_rule"),
            native.kernel("state_space_scan"),
        )
        self._norm = native.kernel("gated_rms_norm")

    def causal_conv(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tails: Tensor,
        read: Tensor,
        write: Tensor,
    ) -> tuple[Tensor, Tensor]:
        x, weight = x.contiguous(), weight.contiguous()
        out = torch.empty_like(x)
        self._conv(
            x, TYPES[x.dtype], weight, bias, tails, out, *x.shape, weight.shape[1], read, write
        )
        return out, tails

    def gated_delta_rule(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        decay: Tensor,
        beta: Tensor,
        states: Tensor,
        read: Tensor,
        write: Tensor,
    ) -> tuple[Tensor, Tensor]:
        (q, q_token), (k, k_token), (v, v_token) = map(_by_token, (q, k, v))
        runs, length, values, value_dim = v.shape
        key_heads, key_dim = k.shape[2:]
        # The struct Heads of csrc/recurrent.cpp.
        sizes = (key_heads, values, key_dim, value_dim, decay.shape[3], q_token, k_token, v_token)
        out = v.new_empty(v.shape)
        self._delta(
            torch.tensor(sizes), q, k, v, TYPES[v.dtype], _wide(decay), _wide(beta), states, out,
            runs, length, read, write,
        )  # fmt: skip
        return out, states

    def state_space_scan(
        self,
        x: Tensor,
        dt: Tensor,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        skip: Tensor,
        states: Tensor,
        read: Tensor,
        write: Tensor,
    ) -> tuple[Tensor, Tensor]:
        (x, x_token), (b, b_token), (c, c_token) = map(_by_token, (x, b, c))
        runs, length, heads, head_dim = x.shape
        # The struct Space of csrc/recurrent.cpp.
        sizes = (heads, head_dim, *b.shape[2:], x_token, b_token, c_token)
        out = x.new_empty(x.shape)
        self._scan(
            torch.tensor(sizes), x, _wide(dt), _wide(a), b, c, _wide(skip), TYPES[x.dtype], states,
            out, runs, length, read, write,
        )  # fmt: skip
        return out, states

    def gated_rms_norm(
        self,
        x: Tensor,
        gate: Tensor,
        weight: Tensor,
        eps: float,
        *,
        group: int,
        gate_first: bool = False,
        sigmoid: bool = False,
    ) -> Tensor:
        x, gate = x.contiguous(), gate.contiguous()
        out, size = torch.empty_like(x), x.shape[-1]
        self._norm(
            x, gate, _wide(weight), out, x.numel() // size, size, group, TYPES[x.dtype], eps,
            gate_first, sigmoid,
        )  # fmt: skip
        return out


def _wide(x: Tensor) -> Tensor:
    return x.float().contiguous()


def _by_token(x: Tensor) -> tuple[Tensor, int]:
    """x [n, L, heads, D], with the features of a token side by side, and from token to token."""
    runs, length, _, dim = x.shape
    step = x.stride(1) if length > 1 else x.stride(0)
    even = x.stride(0) == length * step or runs == 1
    if x.stride(3) == 1 and x.stride(2) == dim and even:
        return x, step
    x = x.contiguous()
    return x, x.stride(1)
