"""What mixers with a recurrent state share: their convolution, their slots, the groups of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.hal.kv import KVState
from inarch.hal.ops.convolution import causal_conv
from inarch.hal.state import HybridState, MixerState, RunGroup, StatePlan
from inarch.models.builder import Builder

# What a mixer does for one group, with its state: -> [n, L, ...] and the new state.
RunOne = Callable[[RunGroup, MixerState], tuple[Tensor, MixerState]]
RunMixer = Callable[[Tensor, StepInputs, KVState], tuple[Tensor, KVState]]


def over_groups(
    inputs: StepInputs, kv: HybridState, mixer: int, run: RunOne
) -> tuple[Tensor, HybridState]:
    """[T, ...] from what `run` gives for each group of the step; mixer: its index in the state."""
    plan: StatePlan = inputs.plans[-1]
    state = kv.mixers[mixer]
    if len(plan.groups) == 1:
        out, state = run(plan.groups[0], state)
        return out.flatten(0, 1), kv.with_mixer(mixer, state)
    whole: Tensor | None = None
    for group in plan.groups:
        out, state = run(group, state)
        if whole is None:
            whole = out.new_empty((len(inputs.token_ids), *out.shape[2:]))
        whole[group.tokens] = out.flatten(0, 1)
    assert whole is not None
    return whole, kv.with_mixer(mixer, state)


def in_heads(x: Tensor, dim: int) -> Tensor:
    """[..., heads * dim] -> [..., heads, dim]"""
    return x.view(*x.shape[:-1], -1, dim)


@dataclass(frozen=True, eq=False)
class Convolution:
    """A mixer's causal convolution over a group: x [n, L, C] -> [n, L, C]; writes tails."""

    weight: Tensor  # [C, W]
    bias: Tensor | None
    conv: Callable[..., tuple[Tensor, Tensor]]

    def __call__(self, x: Tensor, tails: Tensor, group: RunGroup) -> tuple[Tensor, Tensor]:
        return self.conv(x, self.weight, self.bias, tails, group.read, group.write)


def build_convolution(builder: Builder, name: str) -> Convolution:
    weight = builder.weights.take(f"{name}.weight")
    bias = f"{name}.bias"
    channels, width = weight.shape
    return Convolution(
        weight,
        builder.weights.take(bias) if bias in builder.weights else None,
        builder.bind(causal_conv, channels=channels, width=width),
    )


def beside_states(run: RunMixer) -> RunMixer:
    """A mixer that knows of pages only, in a model whose state is more than them."""

    def mixer(x: Tensor, inputs: StepInputs, kv: HybridState) -> tuple[Tensor, HybridState]:
        x, pages = run(x, inputs, kv.pages)
        return x, kv.with_pages(pages)

    return mixer
