"""Qwen3: Qwen2 with a norm on every head of q and k in place of the biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=151936,
    intermediate_size=22016,
    max_position_embeddings=32768,
    kv_heads=32,
    head_dim=128,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    bias = config.flag("attention_bias", False)
    return llama_like.describe(
        config,
        DEFAULTS,
        windows=layer_patterns.qwen_windows(config, llama_like.layer_count(config, DEFAULTS)),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=True,
    )


FAMILY = Family("qwen3", ("Qwen3ForCausalLM",), describe, tensor_names.LLAMA)
