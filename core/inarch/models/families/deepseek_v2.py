"""DeepSeek V2, V2.5 and V2-Lite: latent attention, many small experts chosen by a softmax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Router
from inarch.models.families.parts import deepseek_experts, latent_like, llama_like
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=102400,
    hidden_size=4096,
    intermediate_size=11008,
    layers=32,
    heads=32,
    max_position_embeddings=2048,
)
RANKS = latent_like.Ranks(q_lora_rank=1536)
EXPERTS = deepseek_experts.Defaults(experts=64, top_k=8, intermediate=1407, shared=2, scale=1.0)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    config.only("mlp_bias", False)
    dense = latent_like.describe(config, DEFAULTS, RANKS, interleaved=True)
    sparse = deepseek_experts.after_first(config, 0)
    return deepseek_experts.describe(dense, config, EXPERTS, _router(config), sparse)


def _router(config: Config) -> Router:
    config.only("scoring_func", "softmax")
    config.only("topk_method", "greedy", "group_limited_greedy")
    config.only("norm_topk_prob", False)  # programs differ in what true means
    plain = deepseek_experts.softmax_router(config, EXPERTS)
    grouped = config.get("topk_method", "greedy") == "group_limited_greedy"
    return deepseek_experts.grouped(plain, config, EXPERTS) if grouped else plain


FAMILY = Family("deepseek_v2", ("DeepseekV2ForCausalLM",), describe, deepseek_experts.NAMES)
