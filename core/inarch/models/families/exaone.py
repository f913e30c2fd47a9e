"""EXAONE 3 and 3.5: Llama under names of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config, renamed
from inarch.models.description import Description
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family

OLDER = {
    "num_layers": "num_hidden_layers",
    "layer_norm_epsilon": "rms_norm_eps",
    "activation_function": "hidden_act",
}


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(renamed(values, OLDER))
    defaults = llama_like.Defaults(
        vocab_size=102400,
        intermediate_size=4 * config.integer("hidden_size", 2048),
        max_position_embeddings=2048,
        hidden_size=2048,
        eps=1e-5,
        tied=True,
    )
    windows = [None] * llama_like.layer_count(config, defaults)
    return llama_like.describe(config, defaults, windows=windows)


NAMES = tensor_names.Naming(
    layer={
        "mixer_norm": ("ln_1",),
        "mixer.qkv": tuple(f"attn.attention.{part}_proj" for part in "qkv"),
        "mixer.out": ("attn.attention.out_proj",),
        "feed_forward_norm": ("ln_2",),
        "feed_forward.gate_up": ("mlp.c_fc_0", "mlp.c_fc_1"),
        "feed_forward.down": ("mlp.c_proj",),
    },
    model={
        "embedding": ("transformer.wte",),
        "norm": ("transformer.ln_f",),
        "head": ("lm_head",),
    },
    layers="transformer.h.{}.",
)
FAMILY = Family("exaone", ("ExaoneForCausalLM",), describe, NAMES)
