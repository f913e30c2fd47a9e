"""Hunyuan, dense: Llama with a norm on every head of q and k, after the rotation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=290943, intermediate_size=11008, max_position_embeddings=2048, eps=1e-5
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    norm, bias = llama_like.norm(config, DEFAULTS), config.flag("attention_bias", False)
    attention = replace(
        llama_like.attention(config, DEFAULTS),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=norm,
        norm_after_rotary=True,
    )
    layer = Layer(attention, llama_like.mlp(config, DEFAULTS), norm, norm)
    return llama_like.model(
        config, DEFAULTS, [layer] * llama_like.layer_count(config, DEFAULTS), norm
    )


NAMES = tensor_names.Naming(
    {
        **tensor_names.LAYER_NAMES,
        "mixer.q_norm": ("self_attn.query_layernorm",),
        "mixer.k_norm": ("self_attn.key_layernorm",),
    }
)
FAMILY = Family("hunyuan_v1_dense", ("HunYuanDenseV1ForCausalLM",), describe, NAMES)
