"""Phi-1, 1.5 and 2: parallel halves behind one LayerNorm, biases everywhere, the head's too."""

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
    vocab_size=51200,
    intermediate_size=8192,
    max_position_embeddings=2048,
    hidden_size=2048,
    layers=24,
    rotated=0.5,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    norm = LayerNorm(config.number("layer_norm_eps", 1e-5))
    attention = replace(
        llama_like.attention(config, DEFAULTS),
        qkv_bias=True,
        out_bias=True,
        qk_norm=norm if config.flag("qk_layernorm", False) else None,
    )
    size = config.integer("intermediate_size", DEFAULTS.intermediate_size)
    mlp = MLP(size, activation(config, default="gelu_new"))
    layer = Layer(attention, mlp, norm, None, parallel=True)
    layers = [layer] * llama_like.layer_count(config, DEFAULTS)
    return llama_like.model(config, DEFAULTS, layers, norm, head_bias=True)


NAMES = tensor_names.Naming(
    {
        **tensor_names.LAYER_NAMES,
        "mixer.out": ("self_attn.dense",),
        "mixer.q_norm": ("self_attn.q_layernorm",),
        "mixer.k_norm": ("self_attn.k_layernorm",),
        "feed_forward.up": ("mlp.fc1",),
        "feed_forward.down": ("mlp.fc2",),
    },
    {**tensor_names.MODEL_NAMES, "norm": ("model.final_layernorm",)},
)
FAMILY = Family("phi", ("PhiForCausalLM",), describe, NAMES)
