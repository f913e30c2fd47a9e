"""Mixtral: Mistral with a mixture of experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, MixtureOfExperts, Router
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.families.parts.activations import gate
from inarch.models.families.parts.experts import (
    ExpertNames,
    chosen_experts,
    expert_count,
    with_expert_names,
    with_experts,
)
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=32000,
    intermediate_size=14336,
    max_position_embeddings=131072,
    kv_heads=8,
    eps=1e-5,
    theta=1e6,
)
CALLED = ExpertNames(
    router="block_sparse_moe.gate",
    experts="block_sparse_moe.experts",
    gate="w1",
    up="w3",
    down="w2",
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    window = config.optional_integer("sliding_window")
    count = expert_count(config, 8)
    experts = MixtureOfExperts(
        experts=count,
        intermediate=config.integer("intermediate_size", DEFAULTS.intermediate_size),
        router=Router(chosen_experts(config, count, 2), renormalise=True),
        activation=gate(config),
    )
    dense = llama_like.describe(
        config, DEFAULTS, windows=[window] * llama_like.layer_count(config, DEFAULTS)
    )
    return with_experts(dense, experts, lambda index: True)


NAMES = with_expert_names(tensor_names.LLAMA, CALLED)
FAMILY = Family("mixtral", ("MixtralForCausalLM",), describe, NAMES)
