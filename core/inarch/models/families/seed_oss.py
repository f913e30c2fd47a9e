"""Seed-OSS: Llama with wide heads and biases on q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=155136,
    intermediate_size=27648,
    max_position_embeddings=524288,
    layers=64,
    heads=80,
    kv_heads=8,
    head_dim=128,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    attention = replace(
        llama_like.attention(config, DEFAULTS),
        qkv_bias=config.flag("attention_bias", True),
        out_bias=config.flag("attention_out_bias", False),
    )
    norm = llama_like.norm(config, DEFAULTS)
    mlp = llama_like.mlp(config, DEFAULTS, bias=config.flag("mlp_bias", False))
    layers = [Layer(attention, mlp, norm, norm)] * llama_like.layer_count(config, DEFAULTS)
    return llama_like.model(config, DEFAULTS, layers, norm)


FAMILY = Family("seed_oss", ("SeedOssForCausalLM",), describe, tensor_names.LLAMA)
