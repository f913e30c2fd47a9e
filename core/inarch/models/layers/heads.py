"""What happens to the heads of q, k and v between their projection and attention.

The usual cases, a rotation or a norm of each head and then a rotation, are left to the attention,
which may do them on its way to the pages. Whatever else a model does comes before, step by step.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inarch.hal.attention import Rotation
from inarch.hal.ops.rotary import qk_norm_rope, rope
from inarch.models.builder import Builder
from inarch.models.description import GroupedQueryAttention, QueryScaling, RMSNorm
from inarch.models.layers.norm import build_norm, norm_weight

# q [T, H, D], k and v [T, G, D], positions [T] -> q, k, v
HeadStep = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
MakeRotation = Callable[..., Rotation]  # of positions


def build_heads(
    spec: GroupedQueryAttention, builder: Builder, name: str
) -> tuple[tuple[HeadStep, ...], MakeRotation | None]:
    """The steps, and then the rotation that attention does, if any."""
    if _fusable(spec):
        return (), _normed_rotation(spec, builder, name)
    rotation = _rotation(spec, builder)
    steps: list[HeadStep] = []
    if rotation is not None and spec.norm_after_rotary:
        steps.append(_rotated(rotation))
        rotation = None
    if spec.qk_norm is not None:
        steps.append(_normed(spec, builder, name))
    if spec.clip is not None:
        steps.append(_clipped(spec.clip))
    if spec.query_scaling is not None:
        # A factor of q commutes with the rotation that may follow.
        steps.append(_scaled(spec.query_scaling, builder))
    return tuple(steps), rotation


def _fusable(spec: GroupedQueryAttention) -> bool:
    """Whether all there is to do is a norm of each head, then a rotation."""
    norm, rotary = spec.qk_norm, spec.rotary
    if not isinstance(norm, RMSNorm) or spec.norm_over != "head" or rotary is None:
        return False
    # A norm without a weight may come before a rotation as well as after: it turns nothing.
    first = not spec.norm_after_rotary or (not norm.weight and rotary.scaling is None)
    return first and spec.clip is None and spec.query_scaling is None


def _normed_rotation(spec: GroupedQueryAttention, builder: Builder, name: str) -> MakeRotation:
    assert isinstance(spec.qk_norm, RMSNorm)
    assert spec.rotary is not None
    q_norm, k_norm = (
        norm_weight(spec.qk_norm, builder, f"{name}.{which}", spec.head_dim)
        for which in ("q_norm", "k_norm")
    )
    # hidden is the size that the norm inside runs over: here a head, not the model's
    facts = {"hidden": spec.head_dim, "weight_dtype": q_norm.dtype}
    turn = builder.bind(qk_norm_rope, **facts, **_facts(spec))
    return functools.partial(
        Rotation,
        turn,
        cos_sin=builder.rotary_table(spec.rotary),
        interleaved=spec.rotary.interleaved,
        norm=(q_norm, k_norm, spec.qk_norm.eps),
    )


def _rotation(spec: GroupedQueryAttention, builder: Builder) -> MakeRotation | None:
    if spec.rotary is None:
        return None
    return functools.partial(
        Rotation,
        builder.bind(rope, **_facts(spec)),
        cos_sin=builder.rotary_table(spec.rotary),
        interleaved=spec.rotary.interleaved,
    )


def _facts(spec: GroupedQueryAttention) -> dict[str, Any]:
    assert spec.rotary is not None
    return {
        "q_heads": spec.q_heads,
        "kv_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "rotary_dim": spec.rotary.dim,
        "interleaved": spec.rotary.interleaved,
    }


def _rotated(rotation: MakeRotation) -> HeadStep:
    def step(q: Tensor, k: Tensor, v: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *rotation(positions=at)(q, k), v

    return step


def _normed(spec: GroupedQueryAttention, builder: Builder, name: str) -> HeadStep:
    q_norm = _head_norm(spec, builder, f"{name}.q_norm", spec.q_heads)
    k_norm = _head_norm(spec, builder, f"{name}.k_norm", spec.kv_heads)

    def step(q: Tensor, k: Tensor, v: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return q_norm(q), k_norm(k), v

    return step


def _head_norm(
    spec: GroupedQueryAttention, builder: Builder, name: str, heads: int
) -> Callable[[Tensor], Tensor]:
    """Of [T, heads, D]."""
    assert spec.qk_norm is not None
    if spec.norm_over == "all_heads":
        whole = build_norm(spec.qk_norm, builder, name, heads * spec.head_dim).alone
        return lambda x: whole(x.flatten(1)).view(x.shape)
    if spec.norm_over == "head":
        return build_norm(spec.qk_norm, builder, name, spec.head_dim).alone
    weights = builder.weights.take(f"{name}.weight")  # [heads, D]
    bare = build_norm(dataclasses.replace(spec.qk_norm, weight=False), builder, name, spec.head_dim)
    return lambda x: (bare.alone(x) * weights).to(x.dtype)


def _clipped(most: float) -> HeadStep:
    def step(q: Tensor, k: Tensor, v: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return q.clamp(-most, most), k.clamp(-most, most), v.clamp(-most, most)

    return step


def _scaled(scaling: QueryScaling, builder: Builder) -> HeadStep:
    def factors() -> Tensor:
        places = torch.arange(builder.description.context_length, dtype=torch.float32)
        places = places.repeat(2)  # where LongRoPE shifts the positions of long requests to
        return 1 + scaling.beta * ((places + scaling.first) / scaling.tokens).floor().log1p()

    table = builder.table(scaling, factors)

    def step(q: Tensor, k: Tensor, v: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (q * table[at].view(-1, 1, 1)).to(q.dtype), k, v

    return step
