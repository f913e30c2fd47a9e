"""DeepSeek V2, V2.5 and V2-Lite: latent attention, many small experts chosen by a softmax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.description import Description
from inarch.models.families import latent_like
from inarch.models.families.config import Config
from inarch.models.family import Family

DEFAULTS = latent_like.Defaults(
    vocab_size=102400,
    hidden_size=4096,
    intermediate_size=11008,
    layers=32,
    heads=32,
    max_position_embeddings=2048,
    q_lora_rank=1536,
)


def describe(values: Mapping[str, Any]) -> Description:
    return latent_like.describe(Config(values), DEFAULTS, interleaved=True)


FAMILY = Family("deepseek_v2", ("DeepseekV2ForCausalLM",), describe, latent_like.names)
