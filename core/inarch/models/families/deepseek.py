"""DeepSeek V3, V3.1, R1 and Kimi K2: latent attention, many small experts chosen by a sigmoid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description
from inarch.models.families.parts import deepseek_experts, latent_like, llama_like
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=129280,
    hidden_size=7168,
    intermediate_size=18432,
    layers=61,
    heads=128,
    max_position_embeddings=4096,
)
RANKS = latent_like.Ranks(q_lora_rank=1536)
EXPERTS = deepseek_experts.Defaults(
    experts=256, top_k=8, intermediate=2048, shared=1, scale=2.5, groups=8, top_groups=4
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    config.only("scoring_func", "sigmoid")
    config.only("topk_method", "noaux_tc")
    dense = latent_like.describe(
        config, DEFAULTS, RANKS, interleaved=config.flag("rope_interleave", True)
    )
    router = deepseek_experts.sigmoid_router(config, EXPERTS)
    sparse = deepseek_experts.after_first(config, 3)
    return deepseek_experts.describe(dense, config, EXPERTS, router, sparse)


FAMILY = Family("deepseek_v3", ("DeepseekV3ForCausalLM",), describe, deepseek_experts.NAMES)
