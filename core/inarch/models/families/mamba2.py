"""Mamba-2: layers of one state-space mixer each, without attention and without feed-forwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, GatedNorm, Layer, Mamba2, RMSNorm
from inarch.models.families.parts import state_space
from inarch.models.families.parts.tensor_names import Naming
from inarch.models.family import Family

# Positions mean nothing to a state: this only bounds what one request may ask for.
CONTEXT_LENGTH = 131_072
MODEL_NAMES = {
    "embedding": ("backbone.embeddings",),
    "norm": ("backbone.norm_f",),
    "head": ("lm_head",),
}
LAYER_NAMES = {"mixer_norm": ("norm",), **state_space.names("mixer", "mixer")}


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    norm = RMSNorm(config.number("layer_norm_epsilon", 1e-5))
    groups = config.integer("n_groups", 8)
    bias = config.flag("use_bias", False)
    config.only("hidden_act", "silu")
    mixer = Mamba2(
        heads=config.integer("num_heads", 128),
        head_dim=config.integer("head_dim", 64),
        groups=groups,
        state_size=config.integer("state_size", 128),
        conv_width=config.integer("conv_kernel", 4),
        norm=GatedNorm(norm.eps, groups),
        conv_bias=config.flag("use_conv_bias", True),
        in_bias=bias,
        out_bias=bias,
        time_step_limit=state_space.time_step_limit(config),
    )
    layer = Layer(mixer, None, mixer_norm=norm, feed_forward_norm=None)
    return Description(
        vocab_size=config.integer("vocab_size", 32768),
        hidden=config.integer("hidden_size", 4096),
        layers=(layer,) * config.integer("num_hidden_layers", 64),
        norm=norm,
        context_length=CONTEXT_LENGTH,
        tie_embeddings=config.flag("tie_word_embeddings", False),
    )


FAMILY = Family(
    "mamba2",
    ("Mamba2ForCausalLM",),
    describe,
    Naming(LAYER_NAMES, MODEL_NAMES, "backbone.layers.{}."),
)
