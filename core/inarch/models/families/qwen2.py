"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and windows in the upper layers if asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=151936, intermediate_size=22016, max_position_embeddings=32768, kv_heads=32
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    windows = layer_patterns.qwen_windows(config, llama_like.layer_count(config, DEFAULTS))
    return llama_like.describe(config, DEFAULTS, windows=windows, qkv_bias=True)


FAMILY = Family("qwen2", ("Qwen2ForCausalLM",), describe, tensor_names.LLAMA)
