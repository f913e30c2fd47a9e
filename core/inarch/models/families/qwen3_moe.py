"""Qwen3 with mixtures of experts: Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, MixtureOfExperts, Router
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.families.parts.activations import gate
from inarch.models.families.parts.experts import (
    chosen_experts,
    expert_count,
    sparse_layers,
    with_expert_names,
    with_experts,
)
from inarch.models.family import Family

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
        windows=[window] * llama_like.layer_count(config, DEFAULTS),
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


NAMES = with_expert_names(tensor_names.LLAMA)
FAMILY = Family("qwen3_moe", ("Qwen3MoeForCausalLM",), describe, NAMES)
