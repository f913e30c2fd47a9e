"""Runs Kimi's delta attention: the delta rule with a decay for each feature of a key."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.hal.state import HybridState, StateTensor
from inarch.models.builder import Builder, Projection
from inarch.models.description import KimiDeltaAttention
from inarch.models.layers.delta_rule import DeltaHeads, DeltaRule, build_delta_rule
from inarch.models.layers.recurrent import in_heads


@dataclass(frozen=True, eq=False)
class KimiDeltaMixer:
    """One layer. x [T, hidden] -> [T, hidden]; advances the states of the step's runs."""

    spec: KimiDeltaAttention
    project: Projection
    decay: Projection
    gate: Projection
    rate: Tensor  # float32 [heads, 1], below 0
    dt_bias: Tensor
    rule: DeltaRule

    def __call__(
        self, x: Tensor, inputs: StepInputs, kv: HybridState
    ) -> tuple[Tensor, HybridState]:
        spec = self.spec
        low = spec.head_dim
        qkv, f, g, b = torch.split(self.project(x), [3 * spec.inner, low, low, spec.heads], -1)
        steps = F.softplus(self.decay(f).float() + self.dt_bias)
        decay = self.rate * in_heads(steps, low)
        return self.rule(qkv, self.gate(g), decay, b.sigmoid(), inputs, kv)


def build_kimi_delta(spec: KimiDeltaAttention, builder: Builder, name: str) -> KimiDeltaMixer:
    a_log = builder.weights.take(f"{name}.a_log")
    return KimiDeltaMixer(
        spec=spec,
        project=builder.linear(f"{name}.project"),
        decay=builder.linear(f"{name}.decay"),
        gate=builder.linear(f"{name}.gate"),
        rate=-a_log.float().exp().unsqueeze(-1),
        dt_bias=builder.weights.take(f"{name}.dt_bias").float(),
        rule=build_delta_rule(
            _heads(spec), builder, name, norm_eps=spec.norm_eps, by_channel=True, sigmoid=True
        ),
    )


def kimi_delta_state(spec: KimiDeltaAttention, dtype: torch.dtype) -> tuple[StateTensor, ...]:
    return _heads(spec).state(spec.conv_width, dtype)


def _heads(spec: KimiDeltaAttention) -> DeltaHeads:
    return DeltaHeads(spec.heads, spec.heads, spec.head_dim, spec.head_dim)
