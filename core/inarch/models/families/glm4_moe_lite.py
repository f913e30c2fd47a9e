"""GLM-4.7-Flash: DeepSeek V3's layers in a smaller model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description
from inarch.models.families.parts import deepseek_experts, latent_like, layer_patterns, llama_like
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=154880,
    hidden_size=2048,
    intermediate_size=10240,
    layers=47,
    heads=20,
    max_position_embeddings=202752,
    eps=1e-5,
)
RANKS = latent_like.Ranks(q_lora_rank=768, qk_nope_head_dim=192, v_head_dim=256)
EXPERTS = deepseek_experts.Defaults(experts=64, top_k=4, intermediate=1536, shared=1, scale=1.8)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    dense = latent_like.describe(
        config, DEFAULTS, RANKS, interleaved=config.flag("rope_interleave", True)
    )
    default = ["dense"] + ["sparse"] * (len(dense.layers) - 1)
    types = layer_patterns.listed(config, "mlp_layer_types", default, ("dense", "sparse"))
    router = deepseek_experts.sigmoid_router(config, EXPERTS)
    return deepseek_experts.describe(
        dense, config, EXPERTS, router, lambda index: types[index] == "sparse"
    )


FAMILY = Family("glm4_moe_lite", ("Glm4MoeLiteForCausalLM",), describe, deepseek_experts.NAMES)
