"""Nemotron-H: each layer is one thing, a state space, attention without positions, or an MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.errors import ModelError
from inarch.models.config_json import Config
from inarch.models.description import (
    MLP,
    Description,
    GatedNorm,
    GroupedQueryAttention,
    Layer,
    Mamba2,
    RMSNorm,
)
from inarch.models.families.parts import llama_like, state_space, tensor_names
from inarch.models.families.parts.activations import activation
from inarch.models.family import Family
from inarch.models.sources import FirstOf

DEFAULTS = llama_like.Defaults(
    vocab_size=131072, intermediate_size=21504, max_position_embeddings=4096, kv_heads=8
)
PATTERN = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
OLDER = {"mamba": "linear_attention", "attention": "full_attention"}
MODEL_NAMES = {
    "embedding": ("backbone.embeddings",),
    "norm": ("backbone.norm_f",),
    "head": ("lm_head",),
}
LAYER_NAMES = {
    **state_space.names("mixer", "mixer"),
    "mixer_norm": ("norm",),
    "mixer.qkv": ("mixer.q_proj", "mixer.k_proj", "mixer.v_proj"),
    "mixer.out": FirstOf(("mixer.out_proj",), ("mixer.o_proj",)),
    "feed_forward_norm": ("norm",),
    "feed_forward.up": ("mixer.up_proj",),
    "feed_forward.down": ("mixer.down_proj",),
}


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    norm = RMSNorm(config.number("layer_norm_epsilon", 1e-5))
    size = config.integer("intermediate_size", DEFAULTS.intermediate_size)
    act = activation(config, "mlp_hidden_act", "relu2")
    mlp = MLP(size, act, config.flag("mlp_bias", False))
    layers = {
        "linear_attention": Layer(_mamba(config, norm.eps), None, norm, None),
        "full_attention": Layer(_attention(config), None, norm, None),
        "mlp": Layer(None, mlp, None, norm),
    }
    kinds = _kinds(config)
    if "moe" in kinds:
        raise ModelError(
            "config.json: Nemotron-H's experts, which have no gate, are not supported yet: its "
            "models without experts are"
        )
    return llama_like.model(config, DEFAULTS, [layers[kind] for kind in kinds], norm)


def _kinds(config: Config) -> list[str]:
    """From a list, or from a letter for each layer."""
    pattern = config.get("hybrid_override_pattern")
    listed = config.get("layers_block_type")
    if listed is None and isinstance(pattern, str):
        listed = [PATTERN.get(letter) for letter in pattern]
    known = set(PATTERN.values())
    kinds = [OLDER.get(str(kind), str(kind)) for kind in listed or [None]]
    if not set(kinds) <= known:
        raise config.error("layers_block_type", f"a list out of {', '.join(sorted(known))}")
    return kinds


def _attention(config: Config) -> GroupedQueryAttention:
    size = config.integer("head_dim", 128)
    return GroupedQueryAttention(
        q_heads=config.integer("num_attention_heads", DEFAULTS.heads),
        kv_heads=config.integer("num_key_value_heads", 8),
        head_dim=size,
        rotary=None,
        scale=size**-0.5,
    )


def _mamba(config: Config, eps: float) -> Mamba2:
    config.only("mamba_hidden_act", "silu")
    groups, bias = config.integer("n_groups", 8), config.flag("use_bias", False)
    return Mamba2(
        heads=config.integer("mamba_num_heads", 128),
        head_dim=config.integer("mamba_head_dim", 64),
        groups=groups,
        state_size=config.integer("ssm_state_size", 128),
        conv_width=config.integer("conv_kernel", 4),
        norm=GatedNorm(eps, groups),
        conv_bias=config.flag("use_conv_bias", True),
        in_bias=bias,
        out_bias=bias,
        time_step_limit=state_space.time_step_limit(config),
    )


FAMILY = Family(
    "nemotron_h",
    ("NemotronHForCausalLM",),
    describe,
    tensor_names.Naming(LAYER_NAMES, MODEL_NAMES, "backbone.layers.{}."),
)
