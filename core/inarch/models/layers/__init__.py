"""What runs each kind of mixer and feed-forward that a description can hold: one case for each."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.hal.kv import KVHeads, KVState
from inarch.models.builder import Builder
from inarch.models.description import (
    MLP,
    FeedForward,
    GatedMLP,
    GroupedQueryAttention,
    LatentAttention,
    Mixer,
    MixtureOfExperts,
)
from inarch.models.layers.attention import attention_kv, build_attention
from inarch.models.layers.latent import build_latent, latent_kv
from inarch.models.layers.mlp import build_gated_mlp, build_mlp
from inarch.models.layers.moe import build_moe

RunMixer = Callable[[Tensor, StepInputs, KVState], tuple[Tensor, KVState]]  # x [T, hidden]
RunFeedForward = Callable[[Tensor], Tensor]  # x [T, hidden] -> [T, hidden]


def build_mixer(spec: Mixer, builder: Builder, name: str, layer: int) -> RunMixer:
    """name: the prefix of its parameters; layer: its index in the KV state."""
    match spec:
        case GroupedQueryAttention():
            return build_attention(spec, builder, name, layer)
        case LatentAttention():
            return build_latent(spec, builder, name, layer)


def mixer_kv(spec: Mixer) -> KVHeads:
    """What the mixer keeps of a token."""
    match spec:
        case GroupedQueryAttention():
            return attention_kv(spec)
        case LatentAttention():
            return latent_kv(spec)


def build_feed_forward(spec: FeedForward, builder: Builder, name: str) -> RunFeedForward:
    match spec:
        case GatedMLP():
            return build_gated_mlp(spec, builder, name)
        case MLP():
            return build_mlp(spec, builder, name)
        case MixtureOfExperts():
            return build_moe(spec, builder, name)
