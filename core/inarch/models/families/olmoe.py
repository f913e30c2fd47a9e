"""OLMoE: many small experts, and norms over all heads of q and of k, which may be clipped then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer, MixtureOfExperts, Router
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.families.parts.activations import gate
from inarch.models.families.parts.experts import (
    chosen_experts,
    expert_count,
    with_expert_names,
)
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=50304,
    intermediate_size=2048,
    max_position_embeddings=4096,
    hidden_size=2048,
    layers=16,
    heads=16,
    eps=1e-5,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    bias = config.flag("attention_bias", False)
    norm, count = llama_like.norm(config, DEFAULTS), expert_count(config, 64)
    attention = replace(
        llama_like.attention(config, DEFAULTS),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=norm,
        norm_over="all_heads",
        clip=None if config.get("clip_qkv") is None else config.number("clip_qkv"),
    )
    experts = MixtureOfExperts(
        experts=count,
        intermediate=config.integer("intermediate_size", DEFAULTS.intermediate_size),
        router=Router(
            chosen_experts(config, count, 8),
            renormalise=config.flag("norm_topk_prob", False),
        ),
        activation=gate(config),
    )
    layers = [Layer(attention, experts, norm, norm)] * llama_like.layer_count(config, DEFAULTS)
    return llama_like.model(config, DEFAULTS, layers, norm)


NAMES = with_expert_names(tensor_names.LLAMA)
FAMILY = Family("olmoe", ("OlmoeForCausalLM",), describe, NAMES)
