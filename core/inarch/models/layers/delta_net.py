"""Runs the gated delta net: its projections, before the delta rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.hal.state import HybridState, StateTensor
from inarch.models.builder import Builder, Projection
from inarch.models.description import GatedDeltaNet
from inarch.models.layers.delta_rule import DeltaHeads, DeltaRule, build_delta_rule


@dataclass(frozen=True, eq=False)
class DeltaNetMixer:
    """One layer. x [T, hidden] -> [T, hidden]; advances the states of the step's runs."""

    parts: list[int]  # features of q, k and v together, and of the gate
    qkvz: Projection
    ba: Projection
    decay: Tensor  # float32 [value heads]: of the logarithm, at a step of one
    dt_bias: Tensor
    rule: DeltaRule

    def __call__(
        self, x: Tensor, inputs: StepInputs, kv: HybridState
    ) -> tuple[Tensor, HybridState]:
        qkv, gate = torch.split(self.qkvz(x), self.parts, -1)
        b, a = self.ba(x).chunk(2, dim=-1)
        decay = (self.decay * F.softplus(a.float() + self.dt_bias)).unsqueeze(-1)
        return self.rule(qkv, gate, decay, b.sigmoid(), inputs, kv)


def build_delta_net(spec: GatedDeltaNet, builder: Builder, name: str) -> DeltaNetMixer:
    a_log = builder.weights.take(f"{name}.a_log")
    return DeltaNetMixer(
        parts=[2 * spec.keys + spec.values, spec.values],
        qkvz=builder.linear(f"{name}.qkvz"),
        ba=builder.linear(f"{name}.ba"),
        decay=-a_log.float().exp(),
        dt_bias=builder.weights.take(f"{name}.dt_bias").float(),
        rule=build_delta_rule(
            _heads(spec), builder, name, norm_eps=spec.norm_eps, by_channel=False
        ),
    )


def delta_net_state(spec: GatedDeltaNet, dtype: torch.dtype) -> tuple[StateTensor, ...]:
    return _heads(spec).state(spec.conv_width, dtype)


def _heads(spec: GatedDeltaNet) -> DeltaHeads:
    return DeltaHeads(spec.key_heads, spec.value_heads, spec.key_dim, spec.value_dim)
