"""Mistral: Llama without biases, and in some versions a window that slides in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=32000, intermediate_size=14336, max_position_embeddings=131072, kv_heads=8
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    window = config.optional_integer("sliding_window", 4096)
    windows = [window] * llama_like.layer_count(config, DEFAULTS)
    return llama_like.describe(config, DEFAULTS, windows=windows)


FAMILY = Family("mistral", ("MistralForCausalLM",), describe, tensor_names.LLAMA)
