"""Qwen3.5's text models: Qwen3-Next's layers with projections kept apart, and dense feed-forwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.description import Description, GatedDeltaNet, Layer
from inarch.models.families import naming, qwen3_next
from inarch.models.families.config import Config
from inarch.models.family import Family

DELTA_NAMES = {
    **qwen3_next.DELTA_NAMES,
    "mixer.qkvz": ("linear_attn.in_proj_qkv", "linear_attn.in_proj_z"),
    "mixer.ba": ("linear_attn.in_proj_b", "linear_attn.in_proj_a"),
}


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    mlp = qwen3_next.mlp(config, 12288)
    return qwen3_next.describe_like(
        config, lambda _: mlp, by_key_head=False, vocab_size=248320, hidden=4096
    )


def names(description: Description) -> dict[str, tuple[str, ...]]:
    return naming.names(description, qwen3_next.MODEL_NAMES, "model.layers", _layer_names)


def _layer_names(layer: Layer) -> Mapping[str, tuple[str, ...]]:
    if isinstance(layer.mixer, GatedDeltaNet):
        return qwen3_next.OUTER_NAMES | DELTA_NAMES
    return qwen3_next.layer_names(layer)


FAMILY = Family("qwen3_5", ("Qwen3_5ForCausalLM",), describe, names)
