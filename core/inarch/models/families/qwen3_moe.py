"""Qwen3 with mixtures of experts: Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.description import Description, MixtureOfExperts, Router
from inarch.models.families import llama_like
from inarch.models.families.activations import gate
from inarch.models.families.config import Config
from inarch.models.families.experts import (
    ExpertNames,
    chosen_experts,
    expert_count,
    expert_names,
    sparse_layers,
    with_experts,
)
from inarch.models.family import Family
from inarch.models.sources import Names

DEFAULTS = llama_like.Defaults(
    vocab_size=151936,
    intermediate_size=6144,
    max_position_embeddings=32768,
    hidden_size=2048,
    layers=24,
    kv_heads=4,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    slides = config.flag("use_sliding_window", False)
    window = config.optional_integer("sliding_window", 4096) if slides else None
    bias = config.flag("attention_bias", False)
    dense = llama_like.describe(
        config,
        DEFAULTS,
        windows=[window] * llama_like.layer_count(config, DEFAULTS.layers),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=True,
    )
    return with_experts(dense, experts(config), sparse_layers(config))


def experts(config: Config) -> MixtureOfExperts:
    count = expert_count(config, 128)
    return MixtureOfExperts(
        experts=count,
        intermediate=config.integer("moe_intermediate_size", 768),
        router=Router(
            chosen_experts(config, count, 8),
            renormalise=config.flag("norm_topk_prob", False),
        ),
        activation=gate(config),
    )


def names(description: Description) -> Names:
    return {**llama_like.names(description), **expert_names(description, ExpertNames())}


FAMILY = Family("qwen3_moe", ("Qwen3MoeForCausalLM",), describe, names)
