"""Gemma 1: Llama with norms centred on zero, scaled embeddings and a gelu."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer, RMSNorm
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=256000,
    intermediate_size=24576,
    max_position_embeddings=8192,
    hidden_size=3072,
    layers=28,
    heads=16,
    kv_heads=16,
    head_dim=256,
    tied=True,
)


def describe(values: Mapping[str, Any]) -> Description:
    act = values.get("hidden_act", "gelu")
    # The releases say "gelu" and have always meant the tanh one.
    config = Config({**values, "hidden_act": "gelu_pytorch_tanh" if act == "gelu" else act})
    config.only("use_bidirectional_attention", None, False)
    bias = config.flag("attention_bias", False)
    attention = llama_like.attention(config, DEFAULTS)
    attention = replace(attention, qkv_bias=bias, out_bias=bias)
    norm = RMSNorm(config.number("rms_norm_eps", DEFAULTS.eps), offset=1.0)
    layer = Layer(attention, llama_like.mlp(config, DEFAULTS), norm, norm)
    layers = [layer] * llama_like.layer_count(config, DEFAULTS)
    scale = math.sqrt(config.integer("hidden_size", DEFAULTS.hidden_size))
    return llama_like.model(config, DEFAULTS, layers, norm, embedding_scale=scale)


FAMILY = Family("gemma", ("GemmaForCausalLM",), describe, tensor_names.LLAMA)
