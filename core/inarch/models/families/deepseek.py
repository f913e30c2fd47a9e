"""DeepSeek V3, V3.1, R1 and Kimi K2; V2 has a file of its own. Latent attention, many small experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.description import Description
from inarch.models.families import latent_like
from inarch.models.families.config import Config
from inarch.models.family import Family

DEFAULTS = latent_like.Defaults(
    vocab_size=129280,
    hidden_size=7168,
    intermediate_size=18432,
    layers=61,
    heads=128,
    max_position_embeddings=4096,
    q_lora_rank=1536,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    interleaved = config.flag("rope_interleave", True)
    return latent_like.describe(config, DEFAULTS, interleaved=interleaved)


FAMILY = Family("deepseek_v3", ("DeepseekV3ForCausalLM",), describe, latent_like.names)
