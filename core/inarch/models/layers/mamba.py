"""Runs Mamba-2: project, convolve, scan the state space, gate and norm, project back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.hal.ops.gated_norm import gated_rms_norm
from inarch.hal.ops.state_space import state_space_scan
from inarch.hal.state import HybridState, MixerState, RunGroup, StateTensor
from inarch.models.builder import Builder, Projection
from inarch.models.description import GatedNorm, Mamba2
from inarch.models.layers.recurrent import (
    Convolution,
    build_convolution,
    in_heads,
    over_groups,
)


@dataclass(frozen=True, eq=False)
class MambaMixer:
    """One layer. x [T, hidden] -> [T, hidden]; advances the states of the step's runs."""

    spec: Mamba2
    index: int  # in the state
    project: Projection
    scales: Tensor | None  # [projected features]
    conv: Convolution
    a: Tensor  # float32 [heads], below 0
    dt_bias: Tensor
    skip: Tensor
    scan: Callable[..., tuple[Tensor, Tensor]]
    close: Callable[[Tensor, Tensor], Tensor]  # x, gate [T, inner]
    out: Projection

    def __call__(
        self, x: Tensor, inputs: StepInputs, kv: HybridState
    ) -> tuple[Tensor, HybridState]:
        spec, parts = self.spec, self.spec.parts
        projected = self.project(x)
        if self.scales is not None:
            projected = projected * self.scales
        gate, mixed, steps = torch.split(projected, [parts[0], sum(parts[1:4]), parts[4]], -1)
        dt = F.softplus(steps.float() + self.dt_bias).clamp(*spec.time_step_limit)

        def run(group: RunGroup, state: MixerState) -> tuple[Tensor, MixerState]:
            tails, states = state
            convolved, tails = self.conv(group.take(mixed), tails, group)
            inner, b, c = torch.split(convolved, list(parts[1:4]), -1)
            inner = in_heads(inner, spec.head_dim)
            b, c = (in_heads(part, spec.state_size) for part in (b, c))
            read, write = group.read, group.write
            out, states = self.scan(
                inner, group.take(dt), self.a, b, c, self.skip, states, read, write
            )
            return out, (tails, states)

        y, kv = over_groups(inputs, kv, self.index, run)
        return self.out(self.close(y.flatten(1), gate)), kv


def build_mamba(spec: Mamba2, builder: Builder, name: str) -> MambaMixer:
    facts = {"heads": spec.heads, "head_dim": spec.head_dim, "groups": spec.groups}
    return MambaMixer(
        spec=spec,
        index=builder.next_state(),
        project=builder.linear(f"{name}.project"),
        scales=_scales(spec, builder),
        conv=build_convolution(builder, f"{name}.conv"),
        a=-builder.weights.take(f"{name}.a_log").float().exp(),
        dt_bias=builder.weights.take(f"{name}.dt_bias").float(),
        skip=builder.weights.take(f"{name}.skip").float(),
        scan=builder.bind(state_space_scan, **facts, state_size=spec.state_size),
        close=_close(spec.norm, spec.inner, builder, f"{name}.norm"),
        out=builder.linear(f"{name}.out", ends_pair=True),
    )


def mamba_state(spec: Mamba2, dtype: torch.dtype) -> tuple[StateTensor, ...]:
    return (
        StateTensor((spec.conv_width - 1, sum(spec.parts[1:4])), dtype),
        StateTensor((spec.heads, spec.head_dim, spec.state_size), torch.float32),
    )


def _scales(spec: Mamba2, builder: Builder) -> Tensor | None:
    if set(spec.scales) == {1.0}:
        return None
    each = torch.tensor(spec.scales).repeat_interleave(torch.tensor(spec.parts))
    return builder.on_device(each)


def _close(
    norm: GatedNorm | None, inner: int, builder: Builder, name: str
) -> Callable[[Tensor, Tensor], Tensor]:
    if norm is None:
        return lambda x, gate: x * F.silu(gate)
    weight = builder.weights.take(f"{name}.weight")
    group = inner // norm.groups
    op = builder.bind(gated_rms_norm, hidden=inner, group=group)
    return lambda x, gate: op(x, gate, weight, norm.eps, group=group, gate_first=norm.gate_first)
