"""Falcon-H1: in each layer attention and a state space side by side, and multipliers everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import (
    Branch,
    Description,
    GatedNorm,
    Layer,
    Mamba2,
    ParallelMixers,
)
from inarch.models.families.parts import llama_like, state_space, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=128000,
    intermediate_size=14336,
    max_position_embeddings=8192,
    kv_heads=8,
    eps=1e-5,
)
MODEL_NAMES = {**tensor_names.MODEL_NAMES, "norm": ("model.final_layernorm",)}
LAYER_NAMES = {
    "mixer_norm": ("input_layernorm",),
    **state_space.names("mixer.0", "mamba"),
    "mixer.1.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mixer.1.out": ("self_attn.o_proj",),
    "feed_forward_norm": ("pre_ff_layernorm",),
    "feed_forward.gate_up": ("feed_forward.gate_proj", "feed_forward.up_proj"),
    "feed_forward.down": ("feed_forward.down_proj",),
}


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    norm = llama_like.norm(config, DEFAULTS)
    gate_scale, out_scale = _numbers(config, "mlp_multipliers", 2)
    mlp = llama_like.mlp(config, DEFAULTS, bias=config.flag("mlp_bias", False))
    mixers = ParallelMixers((_mamba(config, norm.eps), _attention(config)))
    layer = Layer(mixers, replace(mlp, gate_scale=gate_scale, out_scale=out_scale), norm, norm)
    return llama_like.model(
        config,
        DEFAULTS,
        [layer] * llama_like.layer_count(config, DEFAULTS),
        norm,
        embedding_scale=config.number("embedding_multiplier", 1.0),
        logit_scale=config.number("lm_head_multiplier", 1.0),
    )


def _attention(config: Config) -> Branch:
    bias = config.flag("attention_bias", False)
    attention = llama_like.attention(config, DEFAULTS)
    return Branch(
        replace(
            attention,
            scale=attention.scale * config.number("key_multiplier", 1.0),
            qkv_bias=bias,
            out_bias=bias,
        ),
        config.number("attention_in_multiplier", 1.0),
        config.number("attention_out_multiplier", 1.0),
    )


def _mamba(config: Config, eps: float) -> Branch:
    expanded = config.integer("mamba_expand", 2) * config.integer("hidden_size", 4096)
    inner = config.optional_integer("mamba_d_ssm", 1024) or expanded
    heads, groups = config.integer("mamba_n_heads", 128), config.integer("mamba_n_groups", 1)
    if inner % heads or config.get("mamba_d_head", "auto") not in ("auto", inner // heads):
        raise config.error("mamba_d_head", f"{inner} features over {heads} heads")
    first = not config.flag("mamba_norm_before_gate", True)
    gate, x, b, c, step = _numbers(config, "ssm_multipliers", 5)
    return Branch(
        Mamba2(
            heads=heads,
            head_dim=inner // heads,
            groups=groups,
            state_size=config.integer("mamba_d_state", 256),
            conv_width=config.integer("mamba_d_conv", 4),
            norm=GatedNorm(eps, groups, first) if config.flag("mamba_rms_norm", False) else None,
            conv_bias=config.flag("mamba_conv_bias", True),
            in_bias=config.flag("mamba_proj_bias", False),
            out_bias=config.flag("projectors_bias", False),
            time_step_limit=state_space.time_step_limit(config),
            scales=(gate, x, b, c, step),
        ),
        config.number("ssm_in_multiplier", 1.0),
        config.number("ssm_out_multiplier", 1.0),
    )


def _numbers(config: Config, key: str, count: int) -> list[float]:
    found = config.get(key) or [1.0] * count
    if not isinstance(found, list) or len(found) != count:
        raise config.error(key, f"a list of {count} numbers")
    return [Config({key: number}).number(key) for number in found]


FAMILY = Family(
    "falcon_h1", ("FalconH1ForCausalLM",), describe, tensor_names.Naming(LAYER_NAMES, MODEL_NAMES)
)
