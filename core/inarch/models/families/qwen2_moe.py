"""Qwen2 with mixtures of experts, and one more that serves every token: Qwen1.5-MoE, Qwen2-57B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, GatedMLP, MixtureOfExperts, Router
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.families.parts.activations import gate
from inarch.models.families.parts.experts import (
    ExpertNames,
    chosen_experts,
    expert_count,
    sparse_layers,
    with_expert_names,
    with_experts,
)
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=151936,
    intermediate_size=5632,
    max_position_embeddings=32768,
    hidden_size=2048,
    layers=24,
    heads=16,
    kv_heads=16,
)
CALLED = ExpertNames(shared="mlp.shared_expert")


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    dense = llama_like.describe(
        config, DEFAULTS, windows=_windows(config), qkv_bias=config.flag("qkv_bias", True)
    )
    return with_experts(dense, experts(config), sparse_layers(config))


def experts(config: Config, count: int = 60, size: int = 1408, top_k: int = 4) -> MixtureOfExperts:
    """count, size, top_k: what a config without them means."""
    count, act = expert_count(config, count), gate(config)
    top_k = chosen_experts(config, count, top_k)
    return MixtureOfExperts(
        experts=count,
        intermediate=config.integer("moe_intermediate_size", size),
        router=Router(top_k, renormalise=config.flag("norm_topk_prob", False)),
        activation=act,
        shared=GatedMLP(config.integer("shared_expert_intermediate_size", 5632), act),
        shared_gate=True,
    )


def _windows(config: Config) -> list[int | None]:
    """Where `layer_types` does not say it, every other of the first layers slides."""
    count = llama_like.layer_count(config, DEFAULTS)
    if not config.flag("use_sliding_window", False):
        return [None] * count
    first = config.integer("max_window_layers", 28, least=0)
    slides = [index < first and index % 2 == 0 for index in range(count)]
    types = ["sliding_attention" if on else "full_attention" for on in slides]
    return layer_patterns.windows(config, types, config.optional_integer("sliding_window", 4096))


NAMES = with_expert_names(tensor_names.LLAMA, CALLED)
FAMILY = Family("qwen2_moe", ("Qwen2MoeForCausalLM",), describe, NAMES)
