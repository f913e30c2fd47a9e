"""Qwen3.5's text models: Qwen3-Next's layers with dense feed-forwards, and projections kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.description import Description
from inarch.models.families import delta_net, llama_like
from inarch.models.families.config import Config
from inarch.models.family import Family
from inarch.models.sources import Names

DEFAULTS = llama_like.Defaults(
    vocab_size=248320,
    intermediate_size=12288,
    max_position_embeddings=32768,
    heads=16,
    kv_heads=4,
    head_dim=256,
    rotated=0.25,
)


def describe(values: Mapping[str, Any]) -> Description:
    return delta_net.describe(Config(values), DEFAULTS)


def names(description: Description) -> Names:
    mixer = delta_net.delta_net_of(description)
    qkv = delta_net.by_head("linear_attn.in_proj_qkv", 1, mixer.keys, mixer.keys, mixer.values)
    qkvz, ba = (*qkv, "linear_attn.in_proj_z"), ("linear_attn.in_proj_b", "linear_attn.in_proj_a")
    return llama_like.Naming(delta_net.names(description, qkvz, ba))(description)


FAMILY = Family("qwen3_5", ("Qwen3_5ForCausalLM",), describe, names)
