"""GLM-4: half of each head rotated, in pairs; GLM-4-0414 has norms after each half too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=151552,
    intermediate_size=13696,
    max_position_embeddings=131072,
    layers=40,
    kv_heads=2,
    head_dim=128,
    eps=0.00000015625,
    rotated=0.5,
)


def describe(values: Mapping[str, Any]) -> Description:
    return _describe(values, post_norms=False)


def describe_0414(values: Mapping[str, Any]) -> Description:
    return _describe(values, post_norms=True)


def _describe(values: Mapping[str, Any], post_norms: bool) -> Description:
    config = Config(values)
    norm, mlp = llama_like.norm(config, DEFAULTS), llama_like.mlp(config, DEFAULTS)
    attention = replace(
        llama_like.attention(config, DEFAULTS, interleaved=True),
        qkv_bias=config.flag("attention_bias", True),
    )
    after = norm if post_norms else None
    layer = Layer(attention, mlp, norm, norm, after, after)
    layers = [layer] * llama_like.layer_count(config, DEFAULTS)
    return llama_like.model(config, DEFAULTS, layers, norm)


NAMES = tensor_names.Naming(
    {
        **tensor_names.LAYER_NAMES,
        "feed_forward.gate_up": ("mlp.gate_up_proj",),
        "mixer_post_norm": ("post_self_attn_layernorm",),
        "feed_forward_post_norm": ("post_mlp_layernorm",),
    }
)
FAMILY = Family("glm", ("GlmForCausalLM",), describe, NAMES)
FAMILY_0414 = Family("glm4", ("Glm4ForCausalLM",), describe_0414, NAMES)
