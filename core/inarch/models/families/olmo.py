"""OLMo 1: Llama with a LayerNorm that has no weights, q, k and v clamped if asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer, LayerNorm
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=50304, intermediate_size=11008, max_position_embeddings=2048
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    norm, bias = LayerNorm(1e-5, bias=False, weight=False), config.flag("attention_bias", False)
    attention = replace(
        llama_like.attention(config, DEFAULTS),
        qkv_bias=bias,
        out_bias=bias,
        clip=config.optional_number("clip_qkv"),
    )
    layer = Layer(attention, llama_like.mlp(config, DEFAULTS), norm, norm)
    return llama_like.model(
        config, DEFAULTS, [layer] * llama_like.layer_count(config, DEFAULTS), norm
    )


FAMILY = Family("olmo", ("OlmoForCausalLM",), describe, tensor_names.LLAMA)
