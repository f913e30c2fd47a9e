"""Llama 4's text model: experts in some layers, which weigh what they read; positions in most.

Layers with positions see their own chunk of the context; those without see all, and sharpen their
queries as it grows. What a checkpoint keeps for images is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import (
    Description,
    GatedMLP,
    GroupedQueryAttention,
    Layer,
    MixtureOfExperts,
    QueryScaling,
    RMSNorm,
    Router,
)
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.families.parts.activations import gate
from inarch.models.families.parts.experts import chosen_experts, expert_count
from inarch.models.family import Family
from inarch.models.sources import Source, Transposed

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


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values).section("text_config") or Config(values)
    count = llama_like.layer_count(config, DEFAULTS)
    norm, sparse = llama_like.norm(config, DEFAULTS), _sparse(config, count)
    experts, mlp = _experts(config), _mlp(config)
    layers = [
        Layer(mixer, experts if index in sparse else mlp, norm, norm)
        for index, mixer in enumerate(_mixers(config, count))
    ]
    return llama_like.model(config, DEFAULTS, layers, norm)


def _mixers(config: Config, count: int) -> list[GroupedQueryAttention]:
    interval = config.integer("no_rope_layer_interval", 4)
    rotated = [int((index + 1) % interval != 0) for index in range(count)]
    if config.get("no_rope_layers"):
        rotated = list(layer_patterns.listed(config, "no_rope_layers", rotated, (0, 1)))
    kinds = ("full_attention", "chunked_attention")
    types = layer_patterns.listed(config, "layer_types", [kinds[on] for on in rotated], kinds)
    return [
        _mixer(config, rotated=bool(on), chunked=kind == "chunked_attention")
        for on, kind in zip(rotated, types, strict=True)
    ]


def _mixer(config: Config, *, rotated: bool, chunked: bool) -> GroupedQueryAttention:
    bias = config.flag("attention_bias", False)
    attention = replace(
        llama_like.attention(config, DEFAULTS, interleaved=True),
        qkv_bias=bias,
        out_bias=bias,
        chunk=config.optional_integer("attention_chunk_size", 8192) if chunked else None,
    )
    if rotated:
        eps = config.number("rms_norm_eps", DEFAULTS.eps)
        bare = RMSNorm(eps, weight=False) if config.flag("use_qk_norm", True) else None
        return replace(attention, qk_norm=bare, norm_after_rotary=True)
    scaling = QueryScaling(
        config.number("attn_scale", 0.1), config.integer("floor_scale", 8192), first=1
    )
    sharpened = config.flag("attn_temperature_tuning", True)
    return replace(attention, rotary=None, query_scaling=scaling if sharpened else None)


def _sparse(config: Config, count: int) -> list[int]:
    step = config.integer("interleave_moe_layer_step", 1)
    layers = config.get("moe_layers")
    if layers is None:
        return list(range(step - 1, count, step))
    if not isinstance(layers, list) or not set(layers) <= set(range(count)):
        raise config.error("moe_layers", f"a list of layers below {count}")
    return layers


def _experts(config: Config) -> MixtureOfExperts:
    count, act = expert_count(config, 16), gate(config)
    size = config.integer("intermediate_size", DEFAULTS.intermediate_size)
    router = Router(chosen_experts(config, count, 1), scores="sigmoid", over_chosen=True)
    shared = GatedMLP(size, act)
    return MixtureOfExperts(count, size, router, act, scale_input=True, shared=shared)


def _mlp(config: Config) -> GatedMLP:
    return GatedMLP(config.integer("intermediate_size_mlp", 16384), gate(config))


NAMES = tensor_names.Naming(
    {
        **tensor_names.LAYER_NAMES,
        "feed_forward.gate_up": ("feed_forward.gate_proj", "feed_forward.up_proj"),
        "feed_forward.down": ("feed_forward.down_proj",),
        "feed_forward.router": ("feed_forward.router",),
        "feed_forward.experts.gate_up.weight": (
            Source("feed_forward.experts.gate_up_proj", (Transposed(),)),
        ),
        "feed_forward.experts.down.weight": (
            Source("feed_forward.experts.down_proj", (Transposed(),)),
        ),
        "feed_forward.shared.gate_up": (
            "feed_forward.shared_expert.gate_proj",
            "feed_forward.shared_expert.up_proj",
        ),
        "feed_forward.shared.down": ("feed_forward.shared_expert.down_proj",),
    }
)
ARCHITECTURES = ("Llama4ForCausalLM", "Llama4ForConditionalGeneration")
FAMILY = Family("llama4", ARCHITECTURES, describe, NAMES)
