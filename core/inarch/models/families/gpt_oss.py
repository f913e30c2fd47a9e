"""gpt-oss: sinks, every other layer slides, biases everywhere, experts with a clamped activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import (
    ClampedSwiglu,
    Description,
    Layer,
    MixtureOfExperts,
    Router,
)
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.families.parts.experts import chosen_experts, expert_count
from inarch.models.family import Family
from inarch.models.sources import Alternating, FirstOf, Mxfp4, Source, Transposed

DEFAULTS = llama_like.Defaults(
    vocab_size=201088,
    intermediate_size=2880,
    max_position_embeddings=131072,
    hidden_size=2880,
    layers=36,
    heads=64,
    kv_heads=8,
    head_dim=64,
    eps=1e-5,
    theta=150_000.0,
)
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def describe(values: Mapping[str, Any]) -> Description:
    config = Config({**values, "rope_parameters": values.get("rope_parameters") or YARN})
    bias, norm = config.flag("attention_bias", True), llama_like.norm(config, DEFAULTS)
    attention = replace(
        llama_like.attention(config, DEFAULTS), qkv_bias=bias, out_bias=bias, sinks=True
    )
    types = layer_patterns.every(2, llama_like.layer_count(config, DEFAULTS))
    windows = layer_patterns.windows(config, types, config.optional_integer("sliding_window", 128))
    experts, mixers = _experts(config), (replace(attention, window=window) for window in windows)
    layers = [Layer(mixer, experts, norm, norm) for mixer in mixers]
    return llama_like.model(config, DEFAULTS, layers, norm)


def _experts(config: Config) -> MixtureOfExperts:
    count = expert_count(config, 128)
    alpha, limit = config.number("swiglu_alpha", 1.702), config.number("swiglu_limit", 7.0)
    return MixtureOfExperts(
        experts=count,
        intermediate=config.integer("intermediate_size", DEFAULTS.intermediate_size),
        router=Router(chosen_experts(config, count, 4), over_chosen=True, bias=True),
        activation=ClampedSwiglu(alpha, limit),
        bias=True,
    )


# Rows of gates and ups alternate. The published experts are in MXFP4, already [outputs, inputs].
GATE_UP, DOWN = "mlp.experts.gate_up_proj", "mlp.experts.down_proj"
NAMES = tensor_names.Naming(
    {
        **tensor_names.LAYER_NAMES,
        "mixer.sinks": ("self_attn.sinks",),
        "feed_forward.router": ("mlp.router",),
        "feed_forward.experts.gate_up.weight": FirstOf(
            (Mxfp4(GATE_UP, (Alternating(),)),), (Source(GATE_UP, (Transposed(), Alternating())),)
        ),
        "feed_forward.experts.gate_up.bias": (
            Source(f"{GATE_UP}_bias", (Alternating(columns=0),)),
        ),
        "feed_forward.experts.down.weight": FirstOf(
            (Mxfp4(DOWN),), (Source(DOWN, (Transposed(),)),)
        ),
        "feed_forward.experts.down.bias": (f"{DOWN}_bias",),
    }
)
FAMILY = Family("gpt_oss", ("GptOssForCausalLM",), describe, NAMES, quantized=("mxfp4",))
