"""Phi-3 and Phi-4: Llama with q, k and v in one tensor, gate and up in another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=32064,
    intermediate_size=8192,
    max_position_embeddings=4096,
    hidden_size=3072,
    eps=1e-5,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    norm, mlp = llama_like.norm(config, DEFAULTS), llama_like.mlp(config, DEFAULTS)
    window = config.optional_integer("sliding_window")
    attention = replace(llama_like.attention(config, DEFAULTS), window=window)
    layers = [Layer(attention, mlp, norm, norm)] * llama_like.layer_count(config, DEFAULTS)
    return llama_like.model(config, DEFAULTS, layers, norm)


NAMES = tensor_names.Naming(
    {
        **tensor_names.LAYER_NAMES,
        "mixer.qkv": ("self_attn.qkv_proj",),
        "feed_forward.gate_up": ("mlp.gate_up_proj",),
    }
)
FAMILY = Family("phi3", ("Phi3ForCausalLM",), describe, NAMES)
