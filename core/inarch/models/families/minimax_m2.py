"""MiniMax-M2: sigmoid routing with a correction, norms over all heads of q and of k."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer, MixtureOfExperts, Router
from inarch.models.families import mixtral
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.families.parts.activations import gate
from inarch.models.families.parts.experts import chosen_experts, expert_count, with_expert_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=200064,
    intermediate_size=1536,
    max_position_embeddings=196608,
    hidden_size=3072,
    layers=62,
    heads=48,
    kv_heads=8,
    head_dim=128,
    theta=5_000_000.0,
)
CALLED = replace(mixtral.CALLED, correction="block_sparse_moe.e_score_correction_bias")


def describe(values: Mapping[str, Any]) -> Description:
    config = _with_rotated_share(Config(values), values)
    norm, count = llama_like.norm(config, DEFAULTS), expert_count(config, 256)
    attention = replace(llama_like.attention(config, DEFAULTS), qk_norm=norm, norm_over="all_heads")
    experts = MixtureOfExperts(
        experts=count,
        intermediate=config.integer("intermediate_size", DEFAULTS.intermediate_size),
        router=Router(
            chosen_experts(config, count, 8), scores="sigmoid", renormalise=True, correction=True
        ),
        activation=gate(config),
    )
    count = llama_like.layer_count(config, DEFAULTS)
    return llama_like.model(config, DEFAULTS, [Layer(attention, experts, norm, norm)] * count, norm)


def _with_rotated_share(config: Config, values: Mapping[str, Any]) -> Config:
    """Published configs count the rotated features of a head, which is a share elsewhere."""
    if config.get("rotary_dim") is None:
        return config
    share = config.integer("rotary_dim") / config.integer("head_dim", 128)
    return Config({"partial_rotary_factor": share, **values})


NAMES = with_expert_names(tensor_names.LLAMA, CALLED)
FAMILY = Family("minimax_m2", ("MiniMaxM2ForCausalLM",), describe, NAMES)
