"""MiniCPM3: latent attention, ordinary feed-forwards, and scaled embeddings, residuals and logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description
from inarch.models.families.parts import latent_like, llama_like
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=73448,
    hidden_size=2560,
    intermediate_size=6400,
    layers=62,
    heads=40,
    max_position_embeddings=32768,
    eps=1e-5,
    tied=True,
)
RANKS = latent_like.Ranks(
    q_lora_rank=768, kv_lora_rank=256, qk_nope_head_dim=64, qk_rope_head_dim=32
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    hidden = config.integer("hidden_size", DEFAULTS.hidden_size)
    heads = config.integer("num_attention_heads", DEFAULTS.heads)
    plain = latent_like.describe(
        config,
        DEFAULTS,
        replace(RANKS, v_head_dim=hidden // heads),
        interleaved=False,
        mlp_bias=config.flag("mlp_bias", False),
    )
    count = len(plain.layers)
    scale = config.optional_number("scale_depth", 1.4)
    residual = 1.0 if scale is None else scale / math.sqrt(count)
    base = config.optional_integer("dim_model_base", 256)
    return replace(
        plain,
        layers=tuple(replace(layer, residual_scale=residual) for layer in plain.layers),
        embedding_scale=config.number("scale_emb", 12),
        logit_scale=1.0 if base is None else base / hidden,
    )


FAMILY = Family("minicpm3", ("MiniCPM3ForCausalLM",), describe, latent_like.names)
