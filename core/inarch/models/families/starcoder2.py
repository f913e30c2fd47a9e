"""StarCoder2: LayerNorm, biases everywhere, a feed-forward without a gate, a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import MLP, Description, Layer, LayerNorm
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.families.parts.activations import activation
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=49152,
    intermediate_size=12288,
    max_position_embeddings=4096,
    hidden_size=3072,
    layers=30,
    heads=24,
    kv_heads=2,
    tied=True,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    bias = config.flag("use_bias", True)
    attention = replace(
        llama_like.attention(config, DEFAULTS),
        window=config.optional_integer("sliding_window"),
        qkv_bias=bias,
        out_bias=bias,
    )
    norm = LayerNorm(config.number("norm_epsilon", 1e-5))
    size = config.integer("intermediate_size", DEFAULTS.intermediate_size)
    mlp = MLP(size, activation(config, default="gelu_pytorch_tanh"), bias)
    layers = [Layer(attention, mlp, norm, norm)] * llama_like.layer_count(config, DEFAULTS)
    return llama_like.model(config, DEFAULTS, layers, norm)


NAMES = tensor_names.Naming(
    {
        **tensor_names.LAYER_NAMES,
        "feed_forward.up": ("mlp.c_fc",),
        "feed_forward.down": ("mlp.c_proj",),
    }
)
FAMILY = Family("starcoder2", ("Starcoder2ForCausalLM",), describe, NAMES)
