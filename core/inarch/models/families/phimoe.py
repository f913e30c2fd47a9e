"""Phi-3.5-MoE: two experts chosen one after the other, and LayerNorm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import (
    Description,
    Layer,
    LayerNorm,
    MixtureOfExperts,
    SparseMixer,
)
from inarch.models.families import mixtral
from inarch.models.families.parts import llama_like
from inarch.models.families.parts.activations import gate
from inarch.models.families.parts.experts import expert_count
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=32064,
    intermediate_size=6400,
    max_position_embeddings=131072,
    kv_heads=8,
    eps=1e-5,
    theta=1_000_000.0,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    norm = LayerNorm(config.number("rms_norm_eps", DEFAULTS.eps))
    bias = config.flag("attention_bias", False)
    attention = replace(
        llama_like.attention(config, DEFAULTS),
        qkv_bias=bias,
        out_bias=bias,
        window=config.optional_integer("sliding_window"),
    )
    if config.integer("num_experts_per_tok", 2) != 2:
        raise config.error("num_experts_per_tok", "2, which is what the sparse mixer chooses")
    experts = MixtureOfExperts(
        experts=expert_count(config, 16),
        intermediate=config.integer("intermediate_size", DEFAULTS.intermediate_size),
        router=SparseMixer(config.number("router_jitter_noise", 0.01)),
        activation=gate(config),
    )
    layers = [Layer(attention, experts, norm, norm)] * llama_like.layer_count(config, DEFAULTS)
    head_bias = config.flag("lm_head_bias", False)
    return llama_like.model(config, DEFAULTS, layers, norm, head_bias=head_bias)


FAMILY = Family("phimoe", ("PhimoeForCausalLM",), describe, mixtral.NAMES)
