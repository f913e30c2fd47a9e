"""OPT: learned positions from the third row on, LayerNorm, a feed-forward of relu."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import (
    MLP,
    Description,
    GroupedQueryAttention,
    Layer,
    LayerNorm,
    LearnedPositions,
)
from inarch.models.families.parts.activations import activation
from inarch.models.families.parts.tensor_names import Naming
from inarch.models.family import Family

OFFSET = 2  # of a position's row in the table


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    config.only("do_layer_norm_before", True)  # the 350M model norms what it has added instead
    config.only("_remove_final_layer_norm", False)
    hidden, heads = config.integer("hidden_size", 768), config.integer("num_attention_heads", 12)
    config.only("word_embed_proj_dim", None, hidden)
    if hidden % heads:
        raise config.error("num_attention_heads", f"a divisor of hidden_size ({hidden})")
    size, bias = hidden // heads, config.flag("enable_bias", True)
    learned = config.flag("layer_norm_elementwise_affine", True)
    norm = LayerNorm(1e-5, bias=learned, weight=learned)
    attention = GroupedQueryAttention(
        heads, heads, size, None, size**-0.5, qkv_bias=bias, out_bias=bias
    )
    act = activation(config, "activation_function", "relu")
    layer = Layer(attention, MLP(config.integer("ffn_dim", 3072), act, bias), norm, norm)
    context = config.integer("max_position_embeddings", 2048)
    return Description(
        vocab_size=config.integer("vocab_size", 50272),
        hidden=hidden,
        layers=(layer,) * config.integer("num_hidden_layers", 12),
        norm=norm,
        context_length=context,
        tie_embeddings=config.flag("tie_word_embeddings", True),
        positions=LearnedPositions(context + OFFSET, OFFSET),
    )


NAMES = Naming(
    layer={
        "mixer_norm": ("self_attn_layer_norm",),
        "mixer.qkv": tuple(f"self_attn.{part}_proj" for part in "qkv"),
        "mixer.out": ("self_attn.out_proj",),
        "feed_forward_norm": ("final_layer_norm",),
        "feed_forward.up": ("fc1",),
        "feed_forward.down": ("fc2",),
    },
    model={
        "embedding": ("model.decoder.embed_tokens",),
        "positions": ("model.decoder.embed_positions",),
        "norm": ("model.decoder.final_layer_norm",),
        "head": ("lm_head",),
    },
    layers="model.decoder.layers.{}.",
)
FAMILY = Family("opt", ("OPTForCausalLM",), describe, NAMES)
