"""Runs grouped-query attention: project, rotate and attend over the paged KV cache, project back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.hal.attention import Attention, AttentionSpec, Rotation
from inarch.hal.executor import StepInputs
from inarch.hal.kv import KVHeads, KVState
from inarch.hal.ops.rotary import qk_norm_rope, rope
from inarch.models.builder import Builder, Projection
from inarch.models.description import GroupedQueryAttention


@dataclass(frozen=True, eq=False)
class AttentionMixer:
    """One layer. x [T, hidden] -> [T, hidden]; writes the layer's K and V."""

    layer: int
    q_heads: int
    kv_heads: int
    head_dim: int
    qkv: Projection
    out: Projection
    rotation: Callable[..., Rotation]  # of positions
    attention: Attention
    plan: int  # index in the plans of a step

    def __call__(self, x: Tensor, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        parts = [self.q_heads, self.kv_heads, self.kv_heads]
        qkv = self.qkv(x).view(len(x), sum(parts), self.head_dim)
        q, k, v = torch.split(qkv, parts, dim=1)
        rotation = self.rotation(positions=inputs.positions)
        plan = inputs.plans[self.plan]
        result = self.attention.run(self.layer, q, k, v, kv, plan, rotation=rotation)
        return self.out(result.out.flatten(1)), result.kv


def build_attention(
    spec: GroupedQueryAttention, builder: Builder, name: str, layer: int
) -> AttentionMixer:
    attention, plan = builder.attention(attention_spec(spec, builder.dtype))
    return AttentionMixer(
        layer=layer,
        q_heads=spec.q_heads,
        kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        qkv=builder.linear(f"{name}.qkv"),
        out=builder.linear(f"{name}.out"),
        rotation=_rotation(spec, builder, name),
        attention=attention,
        plan=plan,
    )


def attention_kv(spec: GroupedQueryAttention) -> KVHeads:
    return KVHeads(spec.kv_heads, spec.head_dim, spec.head_dim)


def attention_spec(spec: GroupedQueryAttention, dtype: torch.dtype) -> AttentionSpec:
    return AttentionSpec(
        q_heads=spec.q_heads,
        kv_heads=spec.kv_heads,
        key_dim=spec.head_dim,
        value_dim=spec.head_dim,
        scale=spec.scale,
        dtype=dtype,
        window=spec.window,
        causal=spec.causal,
    )


def _rotation(spec: GroupedQueryAttention, builder: Builder, name: str) -> Callable[..., Rotation]:
    assert spec.rotary is not None
    table = builder.rotary_table(spec.rotary)
    facts = {
        "q_heads": spec.q_heads,
        "kv_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "rotary_dim": spec.rotary.dim,
        "interleaved": False,
    }
    if spec.qk_norm is None:
        return functools.partial(Rotation, builder.bind(rope, **facts), cos_sin=table)
    q_weight = builder.weights.take(f"{name}.q_norm.weight")
    k_weight = builder.weights.take(f"{name}.k_norm.weight")
    # hidden is the size that the norm inside runs over: here a head, not the model's
    turn = builder.bind(qk_norm_rope, hidden=spec.head_dim, **facts)
    norm = (q_weight, k_weight, spec.qk_norm.eps)
    return functools.partial(Rotation, turn, cos_sin=table, norm=norm)
