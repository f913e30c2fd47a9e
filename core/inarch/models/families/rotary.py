"""Reads how a config rotates positions, and how long a context that gives.

Both spellings are read: `rope_theta` beside `rope_scaling` (transformers 4) and `rope_parameters`
(transformers 5).
"""

from __future__ import annotations

import math

from inarch.errors import ModelError
from inarch.models.description import (
    LinearScaling,
    Llama3Scaling,
    Rotary,
    RotaryScaling,
    YarnScaling,
)
from inarch.models.families.config import Config

LAYER_TYPES = ("full_attention", "sliding_attention")


def rotary(config: Config, dim: int, theta: float = 10_000.0) -> Rotary:
    """theta: where the config gives none."""
    section = config.section("rope_scaling") or config.section("rope_parameters")
    owner = section if section.get("rope_theta") is not None else config
    return Rotary(dim, owner.number("rope_theta", theta), _scaling(config, section))


def context_length(config: Config, rotary: Rotary, default: int) -> int:
    """Tokens: what the config says, or more where a YaRN section stretches it."""
    stated = config.integer("max_position_embeddings", default)
    if isinstance(rotary.scaling, YarnScaling):
        return max(stated, round(rotary.scaling.original_context * rotary.scaling.factor))
    return stated


def _scaling(config: Config, section: Config) -> RotaryScaling | None:
    kind = section.get("rope_type", section.get("type", "default"))
    if any(section.get(layer_type) for layer_type in LAYER_TYPES):
        raise ModelError("config.json rotates its layers differently, which is not supported yet")
    if kind == "default":
        return None
    if kind == "linear":
        return LinearScaling(section.number("factor"))
    if kind == "llama3":
        return Llama3Scaling(
            section.number("factor"),
            section.number("low_freq_factor"),
            section.number("high_freq_factor"),
            _original_context(config, section),
        )
    if kind == "yarn":
        return _yarn(config, section)
    raise ModelError(
        f"config.json asks for the rotary scaling {kind!r}, which is not supported: default, "
        "linear, llama3 and yarn are"
    )


def _yarn(config: Config, section: Config) -> YarnScaling:
    original = _original_context(config, section)
    stretched = config.integer("max_position_embeddings", original)
    factor = section.number("factor", stretched / original)
    return YarnScaling(
        factor,
        original,
        _yarn_magnitude(section, factor),
        section.number("beta_fast", 32.0),
        section.number("beta_slow", 1.0),
        section.flag("truncate", True),
    )


def _yarn_magnitude(section: Config, factor: float) -> float:
    if section.get("attention_factor") is not None:
        return section.number("attention_factor")

    def magnitude(scale: float = 1.0) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    if section.get("mscale") and section.get("mscale_all_dim"):
        return magnitude(section.number("mscale")) / magnitude(section.number("mscale_all_dim"))
    return magnitude()


def _original_context(config: Config, section: Config) -> int:
    key = "original_max_position_embeddings"
    owner = config if config.get(key) else section
    return owner.integer(key, config.get("max_position_embeddings"))
