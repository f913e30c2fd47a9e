"""GPT-2: learned positions, LayerNorm, a feed-forward without a gate, weights stored transposed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
from inarch.models.sources import Source, Transposed


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    config.only("add_cross_attention", False)
    hidden, heads = config.integer("n_embd", 768), config.integer("n_head", 12)
    if hidden % heads:
        raise config.error("n_head", f"a divisor of n_embd ({hidden})")
    norm = LayerNorm(config.number("layer_norm_epsilon", 1e-5))
    size = config.optional_integer("n_inner") or 4 * hidden
    mlp = MLP(size, activation(config, "activation_function", "gelu_new"))
    scale = (hidden // heads) ** -0.5 if config.flag("scale_attn_weights", True) else 1.0
    attention = GroupedQueryAttention(
        heads, heads, hidden // heads, None, scale, qkv_bias=True, out_bias=True
    )
    shrinks = config.flag("scale_attn_by_inverse_layer_idx", False)
    layers = (
        Layer(replace(attention, scale=scale / (i + 1 if shrinks else 1)), mlp, norm, norm)
        for i in range(config.integer("n_layer", 12))
    )
    context = config.integer("n_positions", 1024)
    return Description(
        vocab_size=config.integer("vocab_size", 50257),
        hidden=hidden,
        layers=tuple(layers),
        norm=norm,
        context_length=context,
        tie_embeddings=config.flag("tie_word_embeddings", True),
        positions=LearnedPositions(context),
    )


LINEARS = {
    "mixer.qkv": "attn.c_attn",
    "mixer.out": "attn.c_proj",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
WEIGHTS = {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in LINEARS.items()}
NAMES = Naming(
    layer={
        "mixer_norm": ("ln_1",),
        "feed_forward_norm": ("ln_2",),
        **{f"{ours}.bias": (f"{theirs}.bias",) for ours, theirs in LINEARS.items()},
        **{ours: (Source(theirs, (Transposed(),)),) for ours, theirs in WEIGHTS.items()},
    },
    model={
        "embedding": ("transformer.wte",),
        "positions": ("transformer.wpe",),
        "norm": ("transformer.ln_f",),
        "head": ("lm_head",),
    },
    layers="transformer.h.{}.",
)
FAMILY = Family("gpt2", ("GPT2LMHeadModel",), describe, NAMES)
