"""Gemma 2: Gemma with norms after each half too, soft-capped scores and logits, and every second
layer sliding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer, RMSNorm
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=256000,
    intermediate_size=9216,
    max_position_embeddings=8192,
    hidden_size=2304,
    layers=26,
    heads=8,
    kv_heads=4,
    head_dim=256,
    tied=True,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    config.only("use_bidirectional_attention", None, False)
    bias = config.flag("attention_bias", False)
    attention = replace(
        llama_like.attention(config, DEFAULTS),
        qkv_bias=bias,
        out_bias=bias,
        scale=config.number("query_pre_attn_scalar", 256) ** -0.5,
        softcap=config.optional_number("attn_logit_softcapping", 50.0),
    )
    mlp = llama_like.mlp(config, DEFAULTS, key="hidden_activation", act="gelu_pytorch_tanh")
    norm = RMSNorm(config.number("rms_norm_eps", DEFAULTS.eps), offset=1.0)
    types = layer_patterns.every(2, llama_like.layer_count(config, DEFAULTS))
    windows = layer_patterns.windows(config, types, config.optional_integer("sliding_window", 4096))
    return llama_like.model(
        config,
        DEFAULTS,
        [
            Layer(replace(attention, window=window), mlp, norm, norm, norm, norm)
            for window in windows
        ],
        norm,
        embedding_scale=math.sqrt(config.integer("hidden_size", DEFAULTS.hidden_size)),
        logit_softcap=config.optional_number("final_logit_softcapping", 30.0),
    )


NAMES = tensor_names.Naming({**tensor_names.LAYER_NAMES, **tensor_names.POST_NORM_NAMES})
FAMILY = Family("gemma2", ("Gemma2ForCausalLM",), describe, NAMES)
