"""GPT-NeoX and Pythia: parallel halves with a LayerNorm each, a quarter of each head rotated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config, renamed
from inarch.models.description import MLP, Description, GroupedQueryAttention, Layer, LayerNorm
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.families.parts.activations import activation
from inarch.models.family import Family
from inarch.models.sources import Names, Rows, Source

DEFAULTS = llama_like.Defaults(
    vocab_size=50432,
    intermediate_size=24576,
    max_position_embeddings=2048,
    hidden_size=6144,
    layers=44,
    heads=64,
    rotated=0.25,
)
OLDER = {"rotary_pct": "partial_rotary_factor", "rotary_emb_base": "rope_theta"}


def describe(values: Mapping[str, Any]) -> Description:
    # Every query head has a KV head of its own, whatever a config says beyond what it needs.
    config = Config({**renamed(values, OLDER), "num_key_value_heads": None})
    bias = config.flag("attention_bias", True)
    attention = llama_like.attention(config, DEFAULTS)
    attention = replace(attention, qkv_bias=bias, out_bias=bias)
    norm = LayerNorm(config.number("layer_norm_eps", 1e-5))
    size = config.integer("intermediate_size", DEFAULTS.intermediate_size)
    parallel = config.flag("use_parallel_residual", True)
    layer = Layer(attention, MLP(size, activation(config)), norm, norm, parallel=parallel)
    layers = [layer] * llama_like.layer_count(config, DEFAULTS)
    return llama_like.model(config, DEFAULTS, layers, norm)


def names(description: Description) -> Names:
    """q, k and v of a head lie side by side."""
    mixer = description.layers[0].mixer
    assert isinstance(mixer, GroupedQueryAttention)
    size = mixer.head_dim
    parts = (Rows(start, start + size, mixer.q_heads) for start in (0, size, 2 * size))
    table: tensor_names.Table = {
        "mixer_norm": ("input_layernorm",),
        "mixer.qkv": tuple(Source("attention.query_key_value", (part,)) for part in parts),
        "mixer.out": ("attention.dense",),
        "feed_forward_norm": ("post_attention_layernorm",),
        "feed_forward.up": ("mlp.dense_h_to_4h",),
        "feed_forward.down": ("mlp.dense_4h_to_h",),
    }
    model: tensor_names.Table = {
        "embedding": ("gpt_neox.embed_in",),
        "norm": ("gpt_neox.final_layer_norm",),
        "head": ("embed_out",),
    }
    return tensor_names.Naming(table, model, "gpt_neox.layers.{}.")(description)


FAMILY = Family("gpt_neox", ("GPTNeoXForCausalLM",), describe, names)
