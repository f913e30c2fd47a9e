"""Qwen3-Next: three layers of gated delta net to one of gated attention, each with experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, GatedMLP, MixtureOfExperts, Router
from inarch.models.families.parts import delta_net, llama_like, tensor_names
from inarch.models.families.parts.experts import (
    ExpertNames,
    chosen_experts,
    sparse_layers,
    with_expert_names,
    with_experts,
)
from inarch.models.family import Family
from inarch.models.sources import Names

DEFAULTS = llama_like.Defaults(
    vocab_size=151936,
    intermediate_size=5632,
    max_position_embeddings=32768,
    hidden_size=2048,
    layers=48,
    heads=16,
    kv_heads=2,
    head_dim=256,
    rotated=0.25,
)
CALLED = ExpertNames(shared="mlp.shared_expert")


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    dense = delta_net.describe(config, DEFAULTS)
    if config.integer("num_experts", 512, least=0) == 0:
        return dense
    return with_experts(dense, experts(config), sparse_layers(config))


def experts(
    config: Config, count: int = 512, top_k: int = 10, *, renormalise: bool | None = None
) -> MixtureOfExperts:
    """count, top_k: what a config without them means. renormalise: whether weights sum to one; None:
    as the config has it."""
    count = config.integer("num_experts", count)
    if renormalise is None:
        renormalise = config.flag("norm_topk_prob", True)
    return MixtureOfExperts(
        experts=count,
        intermediate=config.integer("moe_intermediate_size", 512),
        router=Router(chosen_experts(config, count, min(top_k, count)), renormalise=renormalise),
        shared=GatedMLP(config.integer("shared_expert_intermediate_size", 512)),
        shared_gate=True,
    )


def _dense_names(description: Description) -> Names:
    """Rows of one key head lie side by side: its q, its k, and v and z of its value heads."""
    mixer = delta_net.delta_net_of(description)
    values = mixer.values // mixer.key_heads
    each = mixer.value_heads // mixer.key_heads
    qkvz = delta_net.by_head(
        "linear_attn.in_proj_qkvz", mixer.key_heads, mixer.key_dim, mixer.key_dim, values, values
    )
    ba = delta_net.by_head("linear_attn.in_proj_ba", mixer.key_heads, each, each)
    return tensor_names.Naming(delta_net.names(description, qkvz, ba))(description)


NAMES = with_expert_names(_dense_names, CALLED)
FAMILY = Family("qwen3_next", ("Qwen3NextForCausalLM",), describe, NAMES)
