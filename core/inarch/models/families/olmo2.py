"""OLMo 2 and 3: norms after each half alone, and over all heads of q and of k. OLMo 3 slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, GroupedQueryAttention, Layer
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=50304, intermediate_size=11008, max_position_embeddings=2048, eps=1e-5
)
DEFAULTS_3 = replace(DEFAULTS, theta=500_000.0)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    attention = llama_like.attention(config, DEFAULTS)
    return _model(config, DEFAULTS, [attention] * llama_like.layer_count(config, DEFAULTS))


def describe_3(values: Mapping[str, Any]) -> Description:
    """Layers that slide are never scaled."""
    config = Config(values)
    types = layer_patterns.every(4, llama_like.layer_count(config, DEFAULTS))
    windows = layer_patterns.windows(config, types, config.optional_integer("sliding_window", 4096))
    theta = config.number("rope_theta", DEFAULTS_3.theta)
    mixers = llama_like.attentions(config, DEFAULTS_3, windows, theta=theta)
    return _model(config, DEFAULTS_3, mixers)


def _model(
    config: Config, defaults: llama_like.Defaults, mixers: Sequence[GroupedQueryAttention]
) -> Description:
    norm, mlp = llama_like.norm(config, defaults), llama_like.mlp(config, defaults)
    bias = config.flag("attention_bias", False)

    def layer(attention: GroupedQueryAttention) -> Layer:
        normed = replace(attention, qk_norm=norm, norm_over="all_heads")
        return Layer(replace(normed, qkv_bias=bias, out_bias=bias), mlp, None, None, norm, norm)

    return llama_like.model(config, defaults, map(layer, mixers), norm)


NAMES = tensor_names.Naming({**tensor_names.LAYER_NAMES, **tensor_names.POST_NORM_NAMES})
FAMILY = Family("olmo2", ("Olmo2ForCausalLM",), describe, NAMES)
FAMILY_3 = Family("olmo3", ("Olmo3ForCausalLM",), describe_3, NAMES)
