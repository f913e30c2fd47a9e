"""Apertus: a norm on every head of q and k, and a feed-forward without a gate, of xIELU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import MLP, Description, Layer
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=131072,
    intermediate_size=14336,
    max_position_embeddings=65536,
    eps=1e-5,
    theta=12_000_000.0,
)
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 12_000_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


def describe(values: Mapping[str, Any]) -> Description:
    given = {"rope_scaling", "rope_parameters"} & {*values}
    config = Config(values if given else {**values, "rope_parameters": ROPE})
    config.only("hidden_act", "xielu")
    norm, bias = llama_like.norm(config, DEFAULTS), config.flag("attention_bias", False)
    attention = replace(
        llama_like.attention(config, DEFAULTS), qkv_bias=bias, out_bias=bias, qk_norm=norm
    )
    size = config.integer("intermediate_size", DEFAULTS.intermediate_size)
    layer = Layer(attention, MLP(size, "xielu", bias=False), norm, norm)
    return llama_like.model(
        config, DEFAULTS, [layer] * llama_like.layer_count(config, DEFAULTS), norm
    )


NAMES = tensor_names.Naming(
    {
        **tensor_names.LAYER_NAMES,
        "mixer_norm": ("attention_layernorm",),
        "feed_forward_norm": ("feedforward_layernorm",),
        "feed_forward.activation": ("mlp.act_fn",),
    }
)
FAMILY = Family("apertus", ("ApertusForCausalLM",), describe, NAMES)
