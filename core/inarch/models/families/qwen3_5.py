"""Qwen3.5's text models: Qwen3-Next's layers with dense feed-forwards, and projections kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description
from inarch.models.families import qwen3_next
from inarch.models.families.parts import delta_net, llama_like, tensor_names
from inarch.models.families.parts.experts import with_expert_names, with_experts
from inarch.models.family import Family
from inarch.models.sources import Names, Sources

DEFAULTS = llama_like.Defaults(
    vocab_size=248320,
    intermediate_size=12288,
    max_position_embeddings=32768,
    heads=16,
    kv_heads=4,
    head_dim=256,
    rotated=0.25,
)
DEFAULTS_SPARSE = replace(DEFAULTS, hidden_size=2048, layers=40, kv_heads=2)


def describe(values: Mapping[str, Any]) -> Description:
    return delta_net.describe(Config(values), DEFAULTS)


def describe_sparse(values: Mapping[str, Any]) -> Description:
    """With a mixture of experts in each layer."""
    config = Config(values)
    dense = delta_net.describe(config, DEFAULTS_SPARSE)
    experts = qwen3_next.experts(config, 256, 8, renormalise=True)
    return with_experts(dense, experts, lambda _: True)


def describe_text(values: Mapping[str, Any]) -> Description:
    """Of a model that sees images too, what reads text."""
    return describe(Config(values).section("text_config").values)


def describe_sparse_text(values: Mapping[str, Any]) -> Description:
    return describe_sparse(Config(values).section("text_config").values)


def _dense_names(description: Description) -> Names:
    mixer = delta_net.delta_net_of(description)
    qkv = delta_net.by_head("linear_attn.in_proj_qkv", 1, mixer.keys, mixer.keys, mixer.values)
    qkvz: Sources = (*qkv, "linear_attn.in_proj_z")
    ba = ("linear_attn.in_proj_b", "linear_attn.in_proj_a")
    return tensor_names.Naming(delta_net.names(description, qkvz, ba))(description)


NAMES = with_expert_names(_dense_names, qwen3_next.CALLED)
FAMILIES = (
    Family("qwen3_5_text", ("Qwen3_5ForCausalLM",), describe, NAMES),
    Family("qwen3_5_moe_text", ("Qwen3_5MoeForCausalLM",), describe_sparse, NAMES),
    Family("qwen3_5", ("Qwen3_5ForConditionalGeneration",), describe_text, NAMES),
    Family(
        "qwen3_5_moe",
        ("Qwen3_5MoeForConditionalGeneration",),
        describe_sparse_text,
        NAMES,
    ),
)
