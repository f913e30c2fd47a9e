"""Runs Kimi's delta attention: the gated delta rule with a decay for each feature of a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.hal.ops.delta_rule import gated_delta_rule
from inarch.hal.ops.gated_norm import gated_rms_norm
from inarch.hal.state import HybridState, MixerState, RunGroup, StateTensor
from inarch.models.builder import Builder, Projection
from inarch.models.description import KimiDeltaAttention
from inarch.models.layers.recurrent import (
    Convolution,
    build_convolution,
    in_heads,
    over_groups,
)


@dataclass(frozen=True, eq=False)
class KimiDeltaMixer:
    """One layer. x [T, hidden] -> [T, hidden]; advances the states of the step's runs."""

    spec: KimiDeltaAttention
    index: int  # in the state
    project: Projection
    decay: Projection
    gate: Projection
    conv: Convolution
    rate: Tensor  # float32 [heads, 1], below 0
    dt_bias: Tensor
    rule: Callable[..., tuple[Tensor, Tensor]]
    norm_weight: Tensor
    norm: Callable[..., Tensor]
    out: Projection

    def __call__(
        self, x: Tensor, inputs: StepInputs, kv: HybridState
    ) -> tuple[Tensor, HybridState]:
        spec = self.spec
        low = spec.head_dim
        qkv, f, g, b = torch.split(self.project(x), [3 * spec.inner, low, low, spec.heads], -1)
        beta = b.sigmoid()
        steps = F.softplus(self.decay(f).float() + self.dt_bias)
        decay = self.rate * in_heads(steps, low)

        def run(group: RunGroup, state: MixerState) -> tuple[Tensor, MixerState]:
            tails, states = state
            mixed, tails = self.conv(group.take(qkv), tails, group)
            q, k, v = (in_heads(part, low) for part in mixed.chunk(3, dim=-1))
            read, write = group.read, group.write
            out, states = self.rule(
                q, k, v, group.take(decay), group.take(beta), states, read, write
            )
            return out, (tails, states)

        y, kv = over_groups(inputs, kv, self.index, run)
        gate = in_heads(self.gate(g), low)
        y = self.norm(y, gate, self.norm_weight, spec.norm_eps, group=low, sigmoid=True)
        return self.out(y.flatten(1)), kv


def build_kimi_delta(spec: KimiDeltaAttention, builder: Builder, name: str) -> KimiDeltaMixer:
    heads = {"key_heads": spec.heads, "value_heads": spec.heads}
    dims = {"key_dim": spec.head_dim, "value_dim": spec.head_dim}
    a_log = builder.weights.take(f"{name}.a_log")
    return KimiDeltaMixer(
        spec=spec,
        index=builder.next_state(),
        project=builder.linear(f"{name}.project"),
        decay=builder.linear(f"{name}.decay"),
        gate=builder.linear(f"{name}.gate"),
        conv=build_convolution(builder, f"{name}.conv"),
        rate=-a_log.float().exp().unsqueeze(-1),
        dt_bias=builder.weights.take(f"{name}.dt_bias").float(),
        rule=builder.bind(gated_delta_rule, **heads, **dims, by_channel=True),
        norm_weight=builder.weights.take(f"{name}.norm.weight"),
        norm=builder.bind(gated_rms_norm, hidden=spec.head_dim, group=spec.head_dim),
        out=builder.linear(f"{name}.out"),
    )


def kimi_delta_state(spec: KimiDeltaAttention, dtype: torch.dtype) -> tuple[StateTensor, ...]:
    return (
        StateTensor((spec.conv_width - 1, 3 * spec.inner), dtype),
        StateTensor((spec.heads, spec.head_dim, spec.head_dim), torch.float32),
    )
