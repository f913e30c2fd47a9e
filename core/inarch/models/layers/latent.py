"""Runs latent attention: project to latents, rotate, attend over the rows of the pages, project back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.hal.kv import KVHeads, KVState
from inarch.hal.latent import LatentAttention as Attention
from inarch.hal.latent import LatentSpec, UpProjection
from inarch.hal.ops.rotary import rope
from inarch.models.builder import Builder, Projection
from inarch.models.description import LatentAttention
from inarch.models.layers.norm import RunNorm, build_norm

# q [T, H, P] and k [T, 1, P], which are dead afterwards, and their positions [T] -> both, rotated
Rotate = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class LatentMixer:
    """One layer. x [T, hidden] -> [T, hidden]; writes the layer's rows."""

    layer: int
    spec: LatentSpec
    down: Projection
    queries: Callable[[Tensor], Tensor]  # [T, ...] -> [T, H * (N + P)]
    kv_norm: RunNorm
    rotate: Rotate
    up: UpProjection
    out: Projection
    attention: Attention
    plan: int  # index in the plans of a step

    def __call__(self, x: Tensor, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        spec, down = self.spec, self.down(x)
        row = [spec.kv_rank, spec.rope_dim]
        q, latent, k_rope = torch.split(down, [down.shape[1] - sum(row), *row], -1)
        heads = self.queries(q).view(len(x), spec.q_heads, spec.nope_dim + spec.rope_dim)
        q_nope, q_rope = torch.split(heads, [spec.nope_dim, spec.rope_dim], -1)
        q_rope, k_rope = self.rotate(q_rope, k_rope.unsqueeze(1), inputs.positions)
        latent, k_rope = self.kv_norm.alone(latent), k_rope.squeeze(1)
        plan = inputs.plans[self.plan]
        out, kv = self.attention.run(self.layer, q_nope, q_rope, latent, k_rope, kv, plan, self.up)
        return self.out(out.flatten(1)), kv


def build_latent(spec: LatentAttention, builder: Builder, name: str) -> LatentMixer:
    facts = latent_spec(spec, builder.dtype)
    attention, plan = builder.latent_attention(facts)
    return LatentMixer(
        layer=builder.next_pages(),
        spec=facts,
        down=builder.linear(f"{name}.down"),
        queries=_queries(spec, builder, name),
        kv_norm=build_norm(spec.norm, builder, f"{name}.kv_norm", spec.kv_rank),
        rotate=_rotate(spec, builder),
        up=_up(spec, builder.weights.take(f"{name}.kv_up.weight")),
        out=builder.linear(f"{name}.out", ends_pair=True),
        attention=attention,
        plan=plan,
    )


def latent_kv(spec: LatentAttention) -> KVHeads:
    return latent_spec(spec, torch.float32).kv_heads


def latent_spec(spec: LatentAttention, dtype: torch.dtype) -> LatentSpec:
    return LatentSpec(
        q_heads=spec.q_heads,
        kv_rank=spec.kv_rank,
        nope_dim=spec.nope_dim,
        rope_dim=spec.rope_dim,
        value_dim=spec.value_dim,
        scale=spec.scale,
        dtype=dtype,
    )


def _queries(spec: LatentAttention, builder: Builder, name: str) -> Callable[[Tensor], Tensor]:
    if spec.q_rank is None:
        return lambda q: q
    norm = build_norm(spec.norm, builder, f"{name}.q_norm", spec.q_rank)
    up = builder.linear(f"{name}.q_up")
    return lambda latent: up(norm.alone(latent))


def _rotate(spec: LatentAttention, builder: Builder) -> Rotate:
    rotary = spec.rotary
    if rotary is None:
        return lambda q, k, positions: (q, k)
    turn = builder.bind(
        rope,
        q_heads=spec.q_heads,
        kv_heads=1,
        head_dim=spec.rope_dim,
        rotary_dim=rotary.dim,
        interleaved=rotary.interleaved,
    )
    table = builder.rotary_table(rotary)
    return lambda q, k, positions: turn(q, k, positions, table, interleaved=rotary.interleaved)


def _up(spec: LatentAttention, weight: Tensor) -> UpProjection:
    """Views of what a checkpoint keeps as one tensor: each head's rows for keys, then for values."""
    heads = weight.view(spec.q_heads, spec.nope_dim + spec.value_dim, spec.kv_rank)
    key, value = torch.split(heads, [spec.nope_dim, spec.value_dim], 1)
    return UpProjection(key, value)
