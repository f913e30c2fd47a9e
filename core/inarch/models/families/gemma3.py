"""Gemma 3, text: Gemma 2 with norms of heads in place of soft-caps; sliding layers turn faster."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, GroupedQueryAttention, Layer, RMSNorm
from inarch.models.families import gemma2
from inarch.models.families.parts import layer_patterns, llama_like
from inarch.models.family import Family

DEFAULTS = replace(
    gemma2.DEFAULTS, vocab_size=262208, max_position_embeddings=131072, theta=1_000_000.0
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    config.only("use_bidirectional_attention", None, False)
    config.only("attn_logit_softcapping", None)
    norm = RMSNorm(config.number("rms_norm_eps", DEFAULTS.eps), offset=1.0)
    mlp = llama_like.mlp(config, DEFAULTS, key="hidden_activation", act="gelu_pytorch_tanh")
    return llama_like.model(
        config,
        DEFAULTS,
        [Layer(mixer, mlp, norm, norm, norm, norm) for mixer in _attentions(config, norm)],
        norm,
        embedding_scale=math.sqrt(config.integer("hidden_size", DEFAULTS.hidden_size)),
        logit_softcap=config.optional_number("final_logit_softcapping"),
    )


def _attentions(config: Config, norm: RMSNorm) -> list[GroupedQueryAttention]:
    every = config.integer("sliding_window_pattern", 6)
    types = layer_patterns.every(every, llama_like.layer_count(config, DEFAULTS))
    windows = layer_patterns.windows(config, types, config.optional_integer("sliding_window", 4096))
    theta = config.number("rope_local_base_freq", 10_000.0)
    bias = config.flag("attention_bias", False)
    scale = config.number("query_pre_attn_scalar", 256) ** -0.5
    return [
        replace(mixer, qkv_bias=bias, out_bias=bias, qk_norm=norm, scale=scale)
        for mixer in llama_like.attentions(config, DEFAULTS, windows, theta=theta)
    ]


def describe_text(values: Mapping[str, Any]) -> Description:
    """Of a model that sees images too, what reads text."""
    return describe(Config(values).section("text_config").values)


FAMILY = Family("gemma3_text", ("Gemma3ForCausalLM",), describe, gemma2.NAMES)
FAMILY_WITH_IMAGES = Family(
    "gemma3", ("Gemma3ForConditionalGeneration",), describe_text, gemma2.NAMES
)
