"""ERNIE 4.5 with mixtures of experts: a softmax corrected for the choice, and shared experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, GatedMLP, Layer, MixtureOfExperts, Router
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
    vocab_size=103424,
    intermediate_size=12288,
    max_position_embeddings=131072,
    hidden_size=2560,
    layers=28,
    heads=20,
    kv_heads=4,
    eps=1e-5,
    tied=True,
    theta=500_000.0,
)
CALLED = ExpertNames(correction="mlp.moe_statics.e_score_correction_bias")


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    bias = config.flag("use_bias", False)
    attention = replace(
        llama_like.attention(config, DEFAULTS, interleaved=True), qkv_bias=bias, out_bias=bias
    )
    norm, mlp = llama_like.norm(config, DEFAULTS), llama_like.mlp(config, DEFAULTS, bias=bias)
    layers = [Layer(attention, mlp, norm, norm)] * llama_like.layer_count(config, DEFAULTS)
    dense = llama_like.model(config, DEFAULTS, layers, norm)
    return with_experts(dense, _experts(config, bias), _sparse(config, len(layers)))


def _experts(config: Config, bias: bool) -> MixtureOfExperts:
    count, act = expert_count(config, 64), gate(config)
    router = Router(
        chosen_experts(config, count, 6),
        renormalise=True,
        least_sum=config.number("moe_norm_min", 1e-12),
        correction=True,
        float32=True,
    )
    size = config.integer("moe_intermediate_size", 1536)
    shared = config.integer("moe_num_shared_experts", 2, least=0)
    common = GatedMLP(size * shared, act, bias) if shared else None
    return MixtureOfExperts(count, size, router, act, shared=common)


def _sparse(config: Config, layers: int) -> Callable[[int], bool]:
    first, step = (
        config.integer("moe_layer_start_index", 1, least=0),
        config.integer("moe_layer_interval", 1),
    )
    last = config.get("moe_layer_end_index", -1)
    if not isinstance(last, int):
        raise config.error("moe_layer_end_index", "a whole number")
    end = layers if last == -1 else last + 1
    return lambda index: first <= index < end and (index + 1) % step == 0


NAMES = with_expert_names(tensor_names.LLAMA, CALLED)
FAMILY = Family("ernie4_5_moe", ("Ernie4_5_MoeForCausalLM",), describe, NAMES)
