"""Llama 4's attention: rotated layers see only their own chunk of tokens, every fourth sees all of
them, without positions but with sharper queries the further on they are."""

from __future__ import annotations

from dataclasses import replace

from inarch.models.description import GroupedQueryAttention, QueryScaling, RMSNorm
from inarch.models.families import llama_like
from inarch.models.families.config import Config

DEFAULTS = llama_like.Defaults(
    vocab_size=202048,
    intermediate_size=8192,
    max_position_embeddings=131072,
    hidden_size=5120,
    layers=48,
    heads=40,
    kv_heads=8,
    head_dim=128,
    eps=1e-5,
    theta=500_000.0,
)
TYPES = ("full_attention", "chunked_attention")


def attentions(config: Config) -> list[GroupedQueryAttention]:
    """One for each layer."""
    layers = llama_like.layer_count(config, DEFAULTS.layers)
    interval = config.integer("no_rope_layer_interval", 4)
    default = [int((index + 1) % interval != 0) for index in range(layers)]
    rotated = default
    if config.get("no_rope_layers"):  # an empty list means the default too
        rotated = [*llama_like.listed(config, "no_rope_layers", default, (0, 1))]
    kinds = [TYPES[on] for on in rotated]
    chunked = [kind == TYPES[1] for kind in llama_like.listed(config, "layer_types", kinds, TYPES)]
    size = config.optional_integer("attention_chunk_size", 8192)
    with_positions, without = _with_positions(config), _without(config)
    return [
        replace(with_positions if on else without, chunk=size if limited else None)
        for on, limited in zip(rotated, chunked, strict=True)
    ]


def _base(config: Config) -> GroupedQueryAttention:
    bias = config.flag("attention_bias", False)
    attention = llama_like.attention(config, DEFAULTS, interleaved=True)
    return replace(attention, qkv_bias=bias, out_bias=bias)


def _with_positions(config: Config) -> GroupedQueryAttention:
    # Without a weight the norm commutes with the rotation, which comes first in Llama 4.
    norm = RMSNorm(config.number("rms_norm_eps", DEFAULTS.eps), weight=False)
    return replace(_base(config), qk_norm=norm if config.flag("use_qk_norm", True) else None)


def _without(config: Config) -> GroupedQueryAttention:
    scaling = QueryScaling(
        beta=config.number("attn_scale", 0.1), tokens=config.number("floor_scale", 8192), first=1
    )
    tuned = config.flag("attn_temperature_tuning", True)
    return replace(_base(config), rotary=None, query_scaling=scaling if tuned else None)
