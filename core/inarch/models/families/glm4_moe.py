"""GLM-4.5, 4.6 and 4.7, and dots.llm1: ordinary attention, and experts as DeepSeek-V3 has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.description import Description, Layer
from inarch.models.families import deepseek_experts, llama_like
from inarch.models.families.config import Config
from inarch.models.families.experts import ExpertNames, expert_names
from inarch.models.family import Family
from inarch.models.sources import Names

DEFAULTS = llama_like.Defaults(
    vocab_size=151552,
    intermediate_size=10944,
    max_position_embeddings=131072,
    layers=46,
    heads=96,
    kv_heads=8,
    eps=1e-5,
    rotated=0.5,
)
EXPERTS = deepseek_experts.Defaults(experts=128, top_k=8, intermediate=1408, shared=1, scale=1.0)
DOTS = llama_like.Defaults(
    vocab_size=152064,
    intermediate_size=10944,
    max_position_embeddings=2048,
    hidden_size=4608,
    layers=62,
    kv_heads=32,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    norm = llama_like.norm(config, DEFAULTS)
    attention = replace(
        llama_like.attention(config, DEFAULTS),
        qkv_bias=config.flag("attention_bias", False),
        qk_norm=norm if config.flag("use_qk_norm", False) else None,
    )
    layer = Layer(attention, llama_like.mlp(config, DEFAULTS), norm, norm)
    layers = [layer] * llama_like.layer_count(config, DEFAULTS.layers)
    dense = llama_like.model(config, DEFAULTS, layers, norm)
    sparse = deepseek_experts.after_first(config, 1)
    router = deepseek_experts.sigmoid_router(config, EXPERTS)
    return deepseek_experts.describe(dense, config, EXPERTS, router, sparse)


def describe_dots(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    bias = config.flag("attention_bias", False)
    count = llama_like.layer_count(config, DOTS.layers)
    full = config.integer("max_window_layers", 62, least=0)
    types = ["full_attention" if index < full else "sliding_attention" for index in range(count)]
    window = config.optional_integer("sliding_window", 4096)
    windows = llama_like.windows(config, types, window)
    dense = llama_like.describe(
        config, DOTS, windows=windows, qkv_bias=bias, out_bias=bias, qk_norm=True
    )
    sparse = deepseek_experts.after_first(config, 0)
    router = deepseek_experts.sigmoid_router(config, EXPERTS)
    router = replace(router, renormalise=config.flag("norm_topk_prob", False))
    return deepseek_experts.describe(dense, config, EXPERTS, router, sparse)


def names(description: Description) -> Names:
    return {**llama_like.names(description), **expert_names(description, ExpertNames())}


FAMILY = Family("glm4_moe", ("Glm4MoeForCausalLM",), describe, names)
FAMILY_DOTS = Family("dots1", ("Dots1ForCausalLM",), describe_dots, names)
