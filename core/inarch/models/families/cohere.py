"""Command-R and Command A: parallel halves, LayerNorm without bias, features rotated in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, GroupedQueryAttention, Layer, LayerNorm
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=256000,
    intermediate_size=22528,
    max_position_embeddings=8192,
    hidden_size=8192,
    layers=40,
    heads=64,
    tied=True,
    theta=500_000.0,
)
DEFAULTS_2 = replace(DEFAULTS, theta=10_000.0)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    attention = _attention(config, DEFAULTS)
    if config.flag("use_qk_norm", False):
        attention = replace(attention, qk_norm=_norm(config), norm_over="each_head")
    return _model(config, [attention] * llama_like.layer_count(config, DEFAULTS))


def describe_2(values: Mapping[str, Any]) -> Description:
    """Every fourth layer sees all tokens and knows no positions; the others slide."""
    config = Config(values)
    attention = _attention(config, DEFAULTS_2)
    every = config.integer("sliding_window_pattern", 4)
    types = layer_patterns.every(every, llama_like.layer_count(config, DEFAULTS))
    windows = layer_patterns.windows(config, types, config.integer("sliding_window", 4096))
    return _model(
        config,
        [
            replace(attention, window=window, rotary=attention.rotary if window else None)
            for window in windows
        ],
    )


def _norm(config: Config) -> LayerNorm:
    return LayerNorm(config.number("layer_norm_eps", 1e-5), bias=False)


def _attention(config: Config, defaults: llama_like.Defaults) -> GroupedQueryAttention:
    bias = config.flag("attention_bias", False)
    attention = llama_like.attention(config, defaults, interleaved=True)
    return replace(attention, qkv_bias=bias, out_bias=bias)


def _model(config: Config, mixers: list[GroupedQueryAttention]) -> Description:
    norm, mlp = _norm(config), llama_like.mlp(config, DEFAULTS)
    layers = [Layer(mixer, mlp, norm, None, parallel=True) for mixer in mixers]
    scale = config.optional_number("logit_scale", 0.0625) or 1.0
    return llama_like.model(config, DEFAULTS, layers, norm, logit_scale=scale)


FAMILY = Family("cohere", ("CohereForCausalLM",), describe, tensor_names.LLAMA)
FAMILY_2 = Family("cohere2", ("Cohere2ForCausalLM",), describe_2, tensor_names.LLAMA)
