"""SmolLM3: Llama in which every fourth layer knows no positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=128256,
    intermediate_size=11008,
    max_position_embeddings=32768,
    hidden_size=2048,
    layers=36,
    heads=16,
    kv_heads=4,
    tied=True,
    theta=2_000_000.0,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    layers = llama_like.layer_count(config, DEFAULTS)
    interval = config.integer("no_rope_layer_interval", 4)
    rotated = layer_patterns.listed(
        config, "no_rope_layers", [int((i + 1) % interval != 0) for i in range(layers)], (0, 1)
    )
    window = config.optional_integer("sliding_window")
    if not config.flag("use_sliding_window", False):
        window = None
    default = ["full_attention" if window is None or on else "sliding_attention" for on in rotated]
    windows = layer_patterns.windows(config, default, window)
    bias = config.flag("attention_bias", False)
    attention = replace(llama_like.attention(config, DEFAULTS), qkv_bias=bias, out_bias=bias)
    norm = llama_like.norm(config, DEFAULTS)
    mlp = llama_like.mlp(config, DEFAULTS, bias=config.flag("mlp_bias", False))
    mixers = (
        replace(attention, window=window, rotary=attention.rotary if on else None)
        for window, on in zip(windows, rotated, strict=True)
    )
    stack = [Layer(mixer, mlp, norm, norm) for mixer in mixers]
    return llama_like.model(config, DEFAULTS, stack, norm)


FAMILY = Family("smollm3", ("SmolLM3ForCausalLM",), describe, tensor_names.LLAMA)
