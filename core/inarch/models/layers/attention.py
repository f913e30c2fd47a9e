"""Runs grouped-query attention: project, rotate and attend over the paged KV cache, project back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.hal.attention import Attention, AttentionSpec, Rotation
from inarch.hal.executor import StepInputs
from inarch.hal.kv import KVHeads, KVState
from inarch.models.builder import Builder, Projection
from inarch.models.description import GroupedQueryAttention
from inarch.models.layers.heads import HeadStep, build_heads


@dataclass(frozen=True, eq=False)
class AttentionMixer:
    """One layer. x [T, hidden] -> [T, hidden]; writes the layer's K and V."""

    layer: int
    q_heads: int
    kv_heads: int
    head_dim: int
    qkv: Projection
    out: Projection
    steps: tuple[HeadStep, ...]  # before the rotation
    rotation: Callable[..., Rotation] | None  # of positions
    attention: Attention
    plan: int  # index in the plans of a step
    sinks: Tensor | None
    out_gate: bool

    def __call__(self, x: Tensor, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        parts = [self.q_heads, self.kv_heads, self.kv_heads]
        if self.out_gate:
            parts.append(self.q_heads)
        qkv = self.qkv(x).view(len(x), sum(parts), self.head_dim)
        q, k, v, *gate = torch.split(qkv, parts, dim=1)
        for step in self.steps:
            q, k, v = step(q, k, v, inputs.positions)
        rotation = None if self.rotation is None else self.rotation(positions=inputs.positions)
        plan, sinks = inputs.plans[self.plan], self.sinks
        result = self.attention.run(self.layer, q, k, v, kv, plan, rotation=rotation, sinks=sinks)
        out = result.out if not gate else result.out * gate[0].sigmoid()
        return self.out(out.flatten(1)), result.kv


def build_attention(spec: GroupedQueryAttention, builder: Builder, name: str) -> AttentionMixer:
    attention, plan = builder.attention(attention_spec(spec, builder.dtype))
    steps, rotation = build_heads(spec, builder, name)
    return AttentionMixer(
        layer=builder.next_pages(),
        q_heads=spec.q_heads,
        kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        qkv=builder.linear(f"{name}.qkv"),
        out=builder.linear(f"{name}.out", ends_pair=True),
        steps=steps,
        rotation=rotation,
        attention=attention,
        plan=plan,
        sinks=builder.weights.take(f"{name}.sinks") if spec.sinks else None,
        out_gate=spec.out_gate,
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
        chunk=spec.chunk,
        softcap=spec.softcap,
        sinks=spec.sinks,
    )
