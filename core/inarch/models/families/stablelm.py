"""StableLM: Llama with LayerNorm, a quarter of each head rotated, parallel halves if asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer, LayerNorm
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=50304,
    intermediate_size=6912,
    max_position_embeddings=4096,
    hidden_size=2560,
    kv_heads=32,
    rotated=0.25,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    config.only("qk_layernorm", False)
    norm, mlp = LayerNorm(config.number("layer_norm_eps", 1e-5)), llama_like.mlp(config, DEFAULTS)
    bias, parallel = config.flag("use_qkv_bias", False), config.flag("use_parallel_residual", False)
    attention = replace(llama_like.attention(config, DEFAULTS), qkv_bias=bias)
    layer = Layer(attention, mlp, norm, None if parallel else norm, parallel=parallel)
    return llama_like.model(
        config, DEFAULTS, [layer] * llama_like.layer_count(config, DEFAULTS), norm
    )


FAMILY = Family("stablelm", ("StableLmForCausalLM",), describe, tensor_names.LLAMA)
