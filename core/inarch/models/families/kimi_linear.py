"""Kimi-Linear: Kimi's delta attention, latent attention without positions, and many small experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config, renamed
from inarch.models.description import Description, KimiDeltaAttention, Layer, Mixer
from inarch.models.families.parts import (
    deepseek_experts,
    latent_like,
    layer_patterns,
    llama_like,
    tensor_names,
)
from inarch.models.families.parts.experts import ExpertNames, with_expert_names
from inarch.models.family import Family
from inarch.models.sources import FirstOf

DEFAULTS = llama_like.Defaults(
    vocab_size=163840,
    intermediate_size=9216,
    max_position_embeddings=1048576,
    hidden_size=2304,
    layers=27,
    eps=1e-5,
)
RANKS = latent_like.Ranks(q_lora_rank=None)
EXPERTS = deepseek_experts.Defaults(experts=256, top_k=8, intermediate=1024, shared=1, scale=2.446)
OURS = {
    "model_max_length": "max_position_embeddings",
    "moe_renormalize": "norm_topk_prob",
    "num_expert_group": "n_group",
    "num_experts_per_token": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
}
KINDS = ("linear_attention", "full_attention")
HALVES = ("gate_proj", "up_proj")
LAYER_NAMES: tensor_names.Table = {
    **latent_like.AT_ONCE.layer,
    "mixer.project": tuple(f"self_attn.{part}_proj" for part in ("q", "k", "v", "f_a", "g_a", "b")),
    "mixer.decay": ("self_attn.f_b_proj",),
    "mixer.gate": ("self_attn.g_b_proj",),
    "mixer.conv": tuple(f"self_attn.{part}_conv1d" for part in "qkv"),
    "mixer.norm": ("self_attn.o_norm",),
    "mixer.a_log": ("self_attn.A_log",),
    "mixer.dt_bias": ("self_attn.dt_bias",),
    # transformers calls dense layers so when it saves a model
    "feed_forward.gate_up": FirstOf(
        *(tuple(f"{mlp}.{half}" for half in HALVES) for mlp in ("mlp", "block_sparse_moe"))
    ),
    "feed_forward.shared.gate_up": tuple(
        f"block_sparse_moe.shared_experts.{half}" for half in HALVES
    ),
    "feed_forward.shared.down": ("block_sparse_moe.shared_experts.down_proj",),
    "feed_forward.down": FirstOf(("mlp.down_proj",), ("block_sparse_moe.down_proj",)),
}
CALLED = ExpertNames(
    router="block_sparse_moe.gate",
    correction="block_sparse_moe.gate.e_score_correction_bias",
    experts="block_sparse_moe.experts",
    gate="w1",
    up="w3",
    down="w2",
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(renamed(values, OURS))
    config.only("hidden_act", "silu")
    norm, mlp = llama_like.norm(config, DEFAULTS), llama_like.mlp(config, DEFAULTS)
    latent = latent_like.attention(config, DEFAULTS, RANKS, interleaved=False)
    mixers: dict[str, Mixer] = {
        KINDS[0]: _delta(config, norm.eps),
        KINDS[1]: replace(latent, rotary=None),
    }
    layers = [Layer(mixers[kind], mlp, norm, norm) for kind in _kinds(config)]
    dense = llama_like.model(config, DEFAULTS, layers, norm)
    router = deepseek_experts.sigmoid_router(config, EXPERTS)
    types = config.get("mlp_layer_types")
    sparse = deepseek_experts.after_first(config, 1)
    if types is not None:
        types = layer_patterns.listed(
            config, "mlp_layer_types", [""] * len(layers), ("dense", "sparse")
        )
        sparse = [kind == "sparse" for kind in types].__getitem__
    return deepseek_experts.describe(dense, config, EXPERTS, router, sparse)


def _delta(config: Config, eps: float) -> KimiDeltaAttention:
    own = config.section("linear_attn_config")
    return KimiDeltaAttention(
        heads=own.integer("num_heads", config.integer("linear_num_heads", 32)),
        head_dim=own.integer("head_dim", config.integer("linear_head_dim", 128)),
        conv_width=own.integer(
            "short_conv_kernel_size", config.integer("linear_conv_kernel_dim", 4)
        ),
        norm_eps=eps,
    )


def _kinds(config: Config) -> list[str]:
    """By a list of kinds, by a list of the layers (from 1 on) that attend to all, or every fourth."""
    count = llama_like.layer_count(config, DEFAULTS)
    full = config.section("linear_attn_config").get("full_attn_layers")
    if not isinstance(full, list):
        full = range(5, count + 1, 4)
    default = [KINDS[index + 1 in full] for index in range(count)]
    return list(layer_patterns.listed(config, "layer_types", default, KINDS))


NAMES = with_expert_names(tensor_names.Naming(LAYER_NAMES), CALLED)
FAMILY = Family("kimi_linear", ("KimiLinearForCausalLM",), describe, NAMES)
