"""Rotary position embedding. Letters in shapes: T tokens, H query heads, G KV heads, D head size."""

from __future__ import annotations

import torch
from torch import Tensor

from inarch.hal.op import op
from inarch.hal.ops.norm import rms_norm


@op()
def rope(
    q: Tensor, k: Tensor, positions: Tensor, cos_sin: Tensor, *, interleaved: bool = False
) -> tuple[Tensor, Tensor]:
    """Rotate the first R features of every head of q [T, H, D] and k [T, G, D].

    positions [T] int64; cos_sin [max positions, R] float32: R/2 cosines, then R/2 sines. Feature i
    pairs with i + R/2 (half layout, as Llama), or 2i with 2i + 1 if interleaved (as GPT-J). q and k
    are dead afterwards. Source: Su et al., 2021, arXiv:2104.09864.
    """
    cos, sin = cos_sin[positions].unsqueeze(1).chunk(2, dim=-1)  # [T, 1, R/2]
    return _rotate(q, cos, sin, interleaved), _rotate(k, cos, sin, interleaved)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    size = 2 * cos.shape[-1]
    rotated, rest = x[..., :size].float(), x[..., size:]
    if interleaved:
        a, b = rotated[..., ::2], rotated[..., 1::2]
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = rotated.chunk(2, dim=-1)
        turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return torch.cat((turned.to(x.dtype), rest), dim=-1) if rest.shape[-1] else turned.to(x.dtype)


@op(parts=[rms_norm, rope])
def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    eps: float,
    positions: Tensor,
    cos_sin: Tensor,
    *,
    interleaved: bool = False,
    rms_norm: object = rms_norm,
    rope: object = rope,
) -> tuple[Tensor, Tensor]:
    """Normalise every head of q and k, then rotate them: shapes as `rms_norm` and `rope`.

    q_weight, k_weight [D]. As in Qwen3.
    """
    q = rms_norm(q, q_weight, eps)  # type: ignore[operator]
    k = rms_norm(k, k_weight, eps)  # type: ignore[operator]
    return rope(q, k, positions, cos_sin, interleaved=interleaved)  # type: ignore
