"""Falcon: parallel halves, q, k and v in one tensor with one KV head, or some or all side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import MLP, Description, GroupedQueryAttention, Layer, LayerNorm
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.families.parts.activations import activation
from inarch.models.family import Family
from inarch.models.sources import FirstOf, Names, Rows, Source

DEFAULTS = llama_like.Defaults(
    vocab_size=65024,
    intermediate_size=4 * 4544,
    max_position_embeddings=2048,
    hidden_size=4544,
    heads=71,
    tied=True,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    config.only("alibi", False)
    newer = config.flag("new_decoder_architecture", False)
    one_kv_head = config.flag("multi_query", True) and not newer
    stated = 1 if one_kv_head else config.optional_integer("num_kv_heads")
    config = Config({**values, "num_key_value_heads": stated})
    bias = config.flag("bias", False)
    attention = replace(llama_like.attention(config, DEFAULTS), qkv_bias=bias, out_bias=bias)
    norm = LayerNorm(config.number("layer_norm_epsilon", 1e-5))
    hidden = config.integer("hidden_size", DEFAULTS.hidden_size)
    size = config.optional_integer("ffn_hidden_size") or 4 * hidden
    mlp = MLP(size, activation(config, "activation"), bias)
    parallel = newer or config.flag("parallel_attn", True)
    norms = config.optional_integer("num_ln_in_parallel_attn") or (2 if newer else 1)
    own_norm = norm if norms == 2 or not parallel else None
    layer = Layer(attention, mlp, norm, own_norm, parallel=parallel)
    return llama_like.model(
        config, DEFAULTS, [layer] * llama_like.layer_count(config, DEFAULTS), norm
    )


def names(description: Description) -> Names:
    """The heads of a KV group lie side by side: its queries, its key, its value."""
    layer = description.layers[0]
    mixer = layer.mixer
    assert isinstance(mixer, GroupedQueryAttention)
    size, groups = mixer.head_dim, mixer.kv_heads
    k = mixer.q_heads // groups * size
    parts = (Rows(0, k, groups), Rows(k, k + size, groups), Rows(k + size, k + 2 * size, groups))
    table: tensor_names.Table = {
        "mixer_norm": FirstOf(("ln_attn",), ("input_layernorm",)),
        "mixer.qkv": tuple(Source("self_attention.query_key_value", (part,)) for part in parts),
        "mixer.out": ("self_attention.dense",),
        "feed_forward_norm": FirstOf(("ln_mlp",), ("post_attention_layernorm",)),
        "feed_forward.up": ("mlp.dense_h_to_4h",),
        "feed_forward.down": ("mlp.dense_4h_to_h",),
    }
    model: tensor_names.Table = {
        "embedding": ("transformer.word_embeddings",),
        "norm": ("transformer.ln_f",),
        "head": ("lm_head",),
    }
    return tensor_names.Naming(table, model, "transformer.h.{}.")(description)


FAMILY = Family("falcon", ("FalconForCausalLM",), describe, names)
