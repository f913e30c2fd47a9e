"""Ministral: Mistral with windows in the layers that slide. Ministral 3 sharpens its queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer, QueryScaling
from inarch.models.families import mistral
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=32000, intermediate_size=14336, max_position_embeddings=131072, kv_heads=8
)
DEFAULTS_3 = llama_like.Defaults(
    vocab_size=131072,
    intermediate_size=14336,
    max_position_embeddings=262144,
    layers=34,
    kv_heads=8,
    head_dim=128,
    eps=1e-5,
)
ROPE_3 = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    window = config.optional_integer("sliding_window", 4096)
    kind = "full_attention" if window is None else "sliding_attention"
    windows = layer_patterns.windows(
        config, [kind] * llama_like.layer_count(config, DEFAULTS), window
    )
    return llama_like.describe(config, DEFAULTS, windows=windows)


def describe_3(values: Mapping[str, Any]) -> Description:
    config = Config({"rope_parameters": ROPE_3, **values})
    rope = config.section("rope_parameters")
    scaling = QueryScaling(
        beta=rope.number("llama_4_scaling_beta"),
        tokens=rope.integer("original_max_position_embeddings"),
    )
    mixer = replace(
        llama_like.attention(config, DEFAULTS_3),
        window=config.optional_integer("sliding_window"),
        query_scaling=scaling,
    )
    norm = llama_like.norm(config, DEFAULTS_3)
    layer = Layer(mixer, llama_like.mlp(config, DEFAULTS_3), norm, norm)
    layers = [layer] * llama_like.layer_count(config, DEFAULTS_3)
    return llama_like.model(config, DEFAULTS_3, layers, norm)


def describe_text(values: Mapping[str, Any]) -> Description:
    """Of Mistral Small 3 and Ministral 3, which see images too, what reads text."""
    config = Config(values).section("text_config")
    config.only("model_type", "mistral", "ministral3")
    newer = config.get("model_type") == "ministral3"
    return (describe_3 if newer else mistral.describe)(config.values)


FAMILY = Family("ministral", ("MinistralForCausalLM",), describe, tensor_names.LLAMA)
FAMILY_3 = Family("ministral3", ("Ministral3ForCausalLM",), describe_3, tensor_names.LLAMA)
FAMILY_WITH_IMAGES = Family(
    "mistral3", ("Mistral3ForConditionalGeneration",), describe_text, tensor_names.LLAMA
)
