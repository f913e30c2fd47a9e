"""Ops that one operator of CANN computes. Letters in shapes: T tokens, N features, R rotated ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `inarch.hal.ops.norm.rms_norm`."""
    out: Tensor = torch.ops.npu.npu_rms_norm(x, weight, eps)[0]
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See `inarch.hal.ops.norm.add_rms_norm`."""
    normed, _, total = torch.ops.npu.npu_add_rms_norm(x, residual, weight, eps)
    return normed, total


def silu_mul(x: Tensor) -> Tensor:
    """See `inarch.hal.ops.activation.silu_mul`."""
    out: Tensor = torch.ops.npu.npu_swiglu(x, dim=-1)
    return out


# cos_sin -> {(dtype, interleaved): cosines and sines [positions, R] each, one for every feature}
_tables: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def rope(
    q: Tensor, k: Tensor, positions: Tensor, cos_sin: Tensor, *, interleaved: bool = False
) -> tuple[Tensor, Tensor]:
    """See `inarch.hal.ops.rotary.rope`.

    The operator multiplies in the dtype of its inputs, so cosines and sines are rounded to it.
    """
    cos, sin = (
        table.index_select(0, positions)[None, :, None]
        for table in _spread(cos_sin, q.dtype, interleaved)
    )
    mode = "interleave" if interleaved else "half"
    return _rotate(q, cos, sin, mode), _rotate(k, cos, sin, mode)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, mode: str) -> Tensor:
    """x [T, heads, D] as the operator's [1, T, heads, R]: the first R features are rotated."""
    size = cos.shape[-1]
    rotated = x[..., :size].contiguous()[None]
    turned: Tensor = torch.ops.npu.npu_rotary_mul(rotated, cos, sin, mode)[0]
    return turned if size == x.shape[-1] else torch.cat((turned, x[..., size:]), dim=-1)


def _spread(cos_sin: Tensor, dtype: torch.dtype, interleaved: bool) -> tuple[Tensor, Tensor]:
    """The table [positions, R] of half as many cosines, then sines, as one of each for R features."""
    known = _tables.setdefault(cos_sin, {})
    if (dtype, interleaved) not in known:
        halves = cos_sin.to(dtype).chunk(2, dim=-1)
        known[dtype, interleaved] = tuple(
            half.repeat_interleave(2, dim=-1) if interleaved else half.repeat(1, 2)
            for half in halves
        )
    found: tuple[Tensor, Tensor] = known[dtype, interleaved]
    return found
