"""Llama 2, 3 and 3.1, and every model that calls itself one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=32000, intermediate_size=11008, max_position_embeddings=2048
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    bias = config.flag("attention_bias", False)
    return llama_like.describe(
        config,
        DEFAULTS,
        windows=[None] * llama_like.layer_count(config, DEFAULTS),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=config.flag("mlp_bias", False),
    )


FAMILY = Family("llama", ("LlamaForCausalLM",), describe, tensor_names.LLAMA)
