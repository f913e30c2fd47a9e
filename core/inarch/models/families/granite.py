"""Granite 3: Llama whose embeddings, scores, halves and logits are each multiplied by a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=32000, intermediate_size=11008, max_position_embeddings=2048
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    bias = config.flag("attention_bias", False)
    attention = replace(
        llama_like.attention(config, DEFAULTS),
        qkv_bias=bias,
        out_bias=bias,
        scale=config.number("attention_multiplier", 1.0),
    )
    norm = llama_like.norm(config, DEFAULTS)
    mlp = llama_like.mlp(config, DEFAULTS, bias=config.flag("mlp_bias", False))
    scale = config.number("residual_multiplier", 1.0)
    layer = Layer(attention, mlp, norm, norm, residual_scale=scale)
    return llama_like.model(
        config,
        DEFAULTS,
        [layer] * llama_like.layer_count(config, DEFAULTS),
        norm,
        embedding_scale=config.number("embedding_multiplier", 1.0),
        logit_scale=1 / config.number("logits_scaling", 1.0),
    )


FAMILY = Family("granite", ("GraniteForCausalLM",), describe, tensor_names.LLAMA)
