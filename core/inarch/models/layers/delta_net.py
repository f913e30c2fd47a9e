"""Runs the gated delta net: project, convolve, the delta rule, a gated norm, project back."""

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
from inarch.models.description import GatedDeltaNet
from inarch.models.layers.recurrent import (
    Convolution,
    build_convolution,
    in_heads,
    over_groups,
)


@dataclass(frozen=True, eq=False)
class DeltaNetMixer:
    """One layer. x [T, hidden] -> [T, hidden]; advances the states of the step's runs."""

    spec: GatedDeltaNet
    index: int  # in the state
    qkvz: Projection
    ba: Projection
    conv: Convolution
    decay: Tensor  # float32 [value heads]: of the logarithm, at a step of one
    dt_bias: Tensor
    rule: Callable[..., tuple[Tensor, Tensor]]
    norm_weight: Tensor
    norm: Callable[..., Tensor]
    out: Projection

    def __call__(
        self, x: Tensor, inputs: StepInputs, kv: HybridState
    ) -> tuple[Tensor, HybridState]:
        spec = self.spec
        qkv, z = torch.split(self.qkvz(x), [2 * spec.keys + spec.values, spec.values], -1)
        b, a = self.ba(x).chunk(2, dim=-1)
        beta = b.sigmoid()
        decay = (self.decay * F.softplus(a.float() + self.dt_bias)).unsqueeze(-1)

        def run(group: RunGroup, state: MixerState) -> tuple[Tensor, MixerState]:
            tails, states = state
            mixed, tails = self.conv(group.take(qkv), tails, group)
            q, k, v = torch.split(mixed, [spec.keys, spec.keys, spec.values], -1)
            q, k = (in_heads(part, spec.key_dim) for part in (q, k))
            v = in_heads(v, spec.value_dim)
            read, write = group.read, group.write
            out, states = self.rule(
                q, k, v, group.take(decay), group.take(beta), states, read, write
            )
            return out, (tails, states)

        y, kv = over_groups(inputs, kv, self.index, run)
        gate = in_heads(z, spec.value_dim)
        y = self.norm(y, gate, self.norm_weight, spec.norm_eps, group=spec.value_dim)
        return self.out(y.flatten(1)), kv


def build_delta_net(spec: GatedDeltaNet, builder: Builder, name: str) -> DeltaNetMixer:
    heads = {"key_heads": spec.key_heads, "value_heads": spec.value_heads}
    dims = {"key_dim": spec.key_dim, "value_dim": spec.value_dim}
    a_log = builder.weights.take(f"{name}.a_log")
    return DeltaNetMixer(
        spec=spec,
        index=builder.next_state(),
        qkvz=builder.linear(f"{name}.qkvz"),
        ba=builder.linear(f"{name}.ba"),
        conv=build_convolution(builder, f"{name}.conv"),
        decay=-a_log.float().exp(),
        dt_bias=builder.weights.take(f"{name}.dt_bias").float(),
        rule=builder.bind(gated_delta_rule, **heads, **dims, by_channel=False),
        norm_weight=builder.weights.take(f"{name}.norm.weight"),
        norm=builder.bind(gated_rms_norm, hidden=spec.value_dim, group=spec.value_dim),
        out=builder.linear(f"{name}.out"),
    )


def delta_net_state(spec: GatedDeltaNet, dtype: torch.dtype) -> tuple[StateTensor, ...]:
    return (
        StateTensor((spec.conv_width - 1, 2 * spec.keys + spec.values), dtype),
        StateTensor((spec.value_heads, spec.key_dim, spec.value_dim), torch.float32),
    )
