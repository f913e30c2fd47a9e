"""Mixtral: Mistral with a mixture of experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.description import Description, MixtureOfExperts, Router
from inarch.models.families import llama_like
from inarch.models.families.activations import gate
from inarch.models.families.config import Config
from inarch.models.families.experts import (
    ExpertNames,
    chosen_experts,
    expert_count,
    expert_names,
    with_experts,
)
from inarch.models.family import Family
from inarch.models.sources import Names

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
    dense = llama_like.describe(config, DEFAULTS, windows=[window] * llama_like.layer_count(config))
    return with_experts(dense, experts, lambda index: True)


def names(description: Description) -> Names:
    return {**llama_like.names(description), **expert_names(description, CALLED)}


FAMILY = Family("mixtral", ("MixtralForCausalLM",), describe, names)
