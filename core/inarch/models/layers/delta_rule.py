"""What mixers of the gated delta rule share: convolve q, k and v, advance the states, norm, project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.hal.ops.delta_rule import gated_delta_rule
from inarch.hal.ops.gated_norm import gated_rms_norm
from inarch.hal.state import HybridState, MixerState, RunGroup, StateTensor
from inarch.models.builder import Builder, Projection
from inarch.models.layers.recurrent import (
    Convolution,
    build_convolution,
    in_heads,
    over_groups,
)


@dataclass(frozen=True)
class DeltaHeads:
    """Key heads are shared by value_heads / key_heads value heads each."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int

    @property
    def parts(self) -> list[int]:
        """Features of q, k and v."""
        keys = self.key_heads * self.key_dim
        return [keys, keys, self.value_heads * self.value_dim]

    def state(self, conv_width: int, dtype: torch.dtype) -> tuple[StateTensor, ...]:
        """The convolution's tail, in `dtype`, and what the rule keeps, in float32."""
        return (
            StateTensor((conv_width - 1, sum(self.parts)), dtype),
            StateTensor((self.value_heads, self.key_dim, self.value_dim), torch.float32),
        )


@dataclass(frozen=True, eq=False)
class DeltaRule:
    """The part of a mixer behind its projections. H: value heads."""

    heads: DeltaHeads
    index: int  # in the state
    conv: Convolution
    rule: Callable[..., tuple[Tensor, Tensor]]
    norm_weight: Tensor
    norm_eps: float
    sigmoid: bool  # of the gate, instead of silu
    norm: Callable[..., Tensor]
    out: Projection

    def __call__(
        self,
        qkv: Tensor,
        gate: Tensor,
        decay: Tensor,
        beta: Tensor,
        inputs: StepInputs,
        kv: HybridState,
    ) -> tuple[Tensor, HybridState]:
        """[T, hidden] of qkv [T, features], gate [T, H * value_dim], and decay and beta as the op
        `gated_delta_rule` takes them; advances the states of the step's runs."""
        heads = self.heads

        def run(group: RunGroup, state: MixerState) -> tuple[Tensor, MixerState]:
            tails, states = state
            mixed, tails = self.conv(group.take(qkv), tails, group)
            q, k, v = torch.split(mixed, heads.parts, -1)
            q, k, v = (
                in_heads(q, heads.key_dim),
                in_heads(k, heads.key_dim),
                in_heads(v, heads.value_dim),
            )
            read, write = group.read, group.write
            out, states = self.rule(
                q, k, v, group.take(decay), group.take(beta), states, read, write
            )
            return out, (tails, states)

        y, kv = over_groups(inputs, kv, self.index, run)
        dim = heads.value_dim
        gated = {"group": dim, "sigmoid": self.sigmoid}
        y = self.norm(y, in_heads(gate, dim), self.norm_weight, self.norm_eps, **gated)
        return self.out(y.flatten(1)), kv


def build_delta_rule(
    heads: DeltaHeads,
    builder: Builder,
    name: str,
    *,
    norm_eps: float,
    by_channel: bool,
    sigmoid: bool = False,
) -> DeltaRule:
    """by_channel: whether each feature of a key decays by itself. sigmoid: see DeltaRule."""
    dim = heads.value_dim
    return DeltaRule(
        heads=heads,
        index=builder.next_state(),
        conv=build_convolution(builder, f"{name}.conv"),
        rule=builder.bind(gated_delta_rule, **vars(heads), by_channel=by_channel),
        norm_weight=builder.weights.take(f"{name}.norm.weight"),
        norm_eps=norm_eps,
        sigmoid=sigmoid,
        norm=builder.bind(gated_rms_norm, hidden=dim, group=dim),
        out=builder.linear(f"{name}.out", ends_pair=True),
    )
