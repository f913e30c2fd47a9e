"""Qwen3-Next: three layers of gated delta net to one of gated attention, each with experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.errors import ModelError
from inarch.models.description import Description, FeedForward
from inarch.models.families import delta_net, llama_like
from inarch.models.families.config import Config
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


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    dense, step = config.get("mlp_only_layers") or [], config.integer("decoder_sparse_step", 1)

    def feed_forward(index: int) -> FeedForward:
        if index in dense or (index + 1) % step or config.get("num_experts", 512) == 0:
            return llama_like.mlp(config, DEFAULTS)
        raise ModelError("config.json: Qwen3-Next's experts are not supported yet")

    return delta_net.describe(config, DEFAULTS, feed_forward)


def names(description: Description) -> Names:
    """Rows of one key head lie side by side: its q, its k, and v and z of its value heads."""
    mixer = delta_net.delta_net_of(description)
    values = mixer.values // mixer.key_heads
    each = mixer.value_heads // mixer.key_heads
    qkvz = delta_net.by_head(
        "linear_attn.in_proj_qkvz", mixer.key_heads, mixer.key_dim, mixer.key_dim, values, values
    )
    ba = delta_net.by_head("linear_attn.in_proj_ba", mixer.key_heads, each, each)
    return llama_like.Naming(delta_net.names(description, qkvz, ba))(description)


FAMILY = Family("qwen3_next", ("Qwen3NextForCausalLM",), describe, names)
