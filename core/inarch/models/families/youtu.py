"""Youtu-LLM: DeepSeek V3's latent attention with ordinary feed-forwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description
from inarch.models.families.parts import latent_like, llama_like
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=6144,
    layers=32,
    heads=16,
    max_position_embeddings=131072,
    tied=True,
)
RANKS = latent_like.Ranks(q_lora_rank=1536)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    interleaved = config.flag("rope_interleave", True)
    return latent_like.describe(config, DEFAULTS, RANKS, interleaved=interleaved)


FAMILY = Family("youtu", ("YoutuForCausalLM",), describe, latent_like.names)
