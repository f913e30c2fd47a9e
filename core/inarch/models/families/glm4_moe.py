"""GLM-4.5 to 4.7, Solar Open and dots.llm1: ordinary attention, experts as DeepSeek-V3 has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer
from inarch.models.families.parts import deepseek_experts, layer_patterns, llama_like, tensor_names
from inarch.models.families.parts.experts import with_expert_names
from inarch.models.family import Family

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
SOLAR = replace(
    DEFAULTS, vocab_size=196608, layers=48, heads=64, head_dim=128, theta=1_000_000.0, rotated=1.0
)
SOLAR_EXPERTS = replace(EXPERTS, intermediate=1280)
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
    normed = config.flag("use_qk_norm", False)
    sparse = deepseek_experts.after_first(config, 1)
    return _describe(config, DEFAULTS, EXPERTS, sparse, normed=normed)


def describe_solar(values: Mapping[str, Any]) -> Description:
    return _describe(Config(values), SOLAR, SOLAR_EXPERTS, lambda index: True, normed=False)


def _describe(
    config: Config,
    defaults: llama_like.Defaults,
    experts: deepseek_experts.Defaults,
    sparse: Callable[[int], bool],
    *,
    normed: bool,
) -> Description:
    norm = llama_like.norm(config, defaults)
    attention = replace(
        llama_like.attention(config, defaults),
        qkv_bias=config.flag("attention_bias", False),
        qk_norm=norm if normed else None,
    )
    layer = Layer(attention, llama_like.mlp(config, defaults), norm, norm)
    layers = [layer] * llama_like.layer_count(config, defaults)
    dense = llama_like.model(config, defaults, layers, norm)
    router = deepseek_experts.sigmoid_router(config, experts)
    return deepseek_experts.describe(dense, config, experts, router, sparse)


def describe_dots(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    bias = config.flag("attention_bias", False)
    count = llama_like.layer_count(config, DOTS)
    full = config.integer("max_window_layers", 62, least=0)
    types = ["full_attention" if index < full else "sliding_attention" for index in range(count)]
    window = config.optional_integer("sliding_window", 4096)
    windows = layer_patterns.windows(config, types, window)
    dense = llama_like.describe(
        config, DOTS, windows=windows, qkv_bias=bias, out_bias=bias, qk_norm=True
    )
    sparse = deepseek_experts.after_first(config, 0)
    router = deepseek_experts.sigmoid_router(config, EXPERTS)
    router = replace(router, renormalise=config.flag("norm_topk_prob", False))
    return deepseek_experts.describe(dense, config, EXPERTS, router, sparse)


NAMES = with_expert_names(tensor_names.LLAMA)
FAMILY = Family("glm4_moe", ("Glm4MoeForCausalLM",), describe, NAMES)
FAMILY_DOTS = Family("dots1", ("Dots1ForCausalLM",), describe_dots, NAMES)
FAMILY_SOLAR = Family("solar_open", ("SolarOpenForCausalLM",), describe_solar, NAMES)
