"""ERNIE 4.5, dense, and Helium: Llama whose rotation turns neighbouring features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=103424,
    intermediate_size=3072,
    max_position_embeddings=131072,
    hidden_size=1024,
    layers=18,
    heads=16,
    kv_heads=2,
    head_dim=128,
    eps=1e-5,
    tied=True,
    theta=500_000.0,
)
HELIUM = llama_like.Defaults(
    vocab_size=48000,
    intermediate_size=7040,
    max_position_embeddings=4096,
    hidden_size=2560,
    layers=24,
    heads=20,
    kv_heads=20,
    head_dim=128,
    eps=1e-8,
    theta=100_000.0,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    bias = config.flag("use_bias", False)
    return _describe(config, DEFAULTS, bias, bias, bias)


def describe_helium(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    bias = config.flag("attention_bias", False)
    return _describe(config, HELIUM, bias, False, config.flag("mlp_bias", False))


def _describe(
    config: Config, defaults: llama_like.Defaults, qkv_bias: bool, out_bias: bool, mlp_bias: bool
) -> Description:
    norm = llama_like.norm(config, defaults)
    attention = llama_like.attention(config, defaults, interleaved=True)
    attention = replace(attention, qkv_bias=qkv_bias, out_bias=out_bias)
    layer = Layer(attention, llama_like.mlp(config, defaults, bias=mlp_bias), norm, norm)
    layers = [layer] * llama_like.layer_count(config, defaults)
    return llama_like.model(config, defaults, layers, norm)


FAMILY = Family("ernie4_5", ("Ernie4_5ForCausalLM",), describe, tensor_names.LLAMA)
FAMILY_HELIUM = Family("helium", ("HeliumForCausalLM",), describe_helium, tensor_names.LLAMA)
