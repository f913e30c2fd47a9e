"""What runs each kind of mixer and feed-forward that a description can hold: one case for each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.hal.kv import KVHeads, KVState
from inarch.hal.state import StateTensor
from inarch.models.builder import Builder
from inarch.models.description import (
    MLP,
    FeedForward,
    GatedDeltaNet,
    GatedMLP,
    GroupedQueryAttention,
    KimiDeltaAttention,
    LatentAttention,
    Mamba2,
    Mixer,
    MixtureOfExperts,
    ParallelMixers,
)
from inarch.models.layers.attention import attention_kv, build_attention
from inarch.models.layers.delta_net import build_delta_net, delta_net_state
from inarch.models.layers.kimi_delta import build_kimi_delta, kimi_delta_state
from inarch.models.layers.latent import build_latent, latent_kv
from inarch.models.layers.mamba import build_mamba, mamba_state
from inarch.models.layers.mlp import build_gated_mlp, build_mlp
from inarch.models.layers.moe import build_moe
from inarch.models.layers.parallel import ParallelMixer
from inarch.models.layers.recurrent import beside_states

RunMixer = Callable[[Tensor, StepInputs, KVState], tuple[Tensor, KVState]]  # x [T, hidden]
RunFeedForward = Callable[[Tensor], Tensor]  # x [T, hidden] -> [T, hidden]


def build_mixer(spec: Mixer, builder: Builder, name: str) -> RunMixer:
    """name: the prefix of its parameters."""
    match spec:
        case GroupedQueryAttention():
            return _on_pages(build_attention(spec, builder, name), builder)
        case LatentAttention():
            return _on_pages(build_latent(spec, builder, name), builder)
        case GatedDeltaNet():
            return build_delta_net(spec, builder, name)
        case KimiDeltaAttention():
            return build_kimi_delta(spec, builder, name)
        case Mamba2():
            return build_mamba(spec, builder, name)
        case ParallelMixers(branches):
            mixers = (build_mixer(b.mixer, builder, f"{name}.{i}") for i, b in enumerate(branches))
            return ParallelMixer(branches, tuple(mixers))


def _on_pages(run: RunMixer, builder: Builder) -> RunMixer:
    return beside_states(run) if builder.description.has_states else run


def mixer_kv(spec: Mixer) -> tuple[KVHeads, ...]:
    """What the mixer keeps of a token, in the order of its indices in the store."""
    match spec:
        case GroupedQueryAttention():
            return (attention_kv(spec),)
        case LatentAttention():
            return (latent_kv(spec),)
        case ParallelMixers(branches):
            return tuple(heads for branch in branches for heads in mixer_kv(branch.mixer))
        case _:
            return ()


def mixer_states(spec: Mixer, dtype: torch.dtype) -> tuple[tuple[StateTensor, ...], ...]:
    """What the mixer keeps of a sequence, computing in `dtype`, in the order of its indices."""
    match spec:
        case GatedDeltaNet():
            return (delta_net_state(spec, dtype),)
        case KimiDeltaAttention():
            return (kimi_delta_state(spec, dtype),)
        case Mamba2():
            return (mamba_state(spec, dtype),)
        case ParallelMixers(branches):
            return tuple(state for b in branches for state in mixer_states(b.mixer, dtype))
        case _:
            return ()


def build_feed_forward(spec: FeedForward, builder: Builder, name: str) -> RunFeedForward:
    match spec:
        case GatedMLP():
            return build_gated_mlp(spec, builder, name)
        case MLP():
            return build_mlp(spec, builder, name)
        case MixtureOfExperts():
            return build_moe(spec, builder, name)
