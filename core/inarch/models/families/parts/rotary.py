"""Reads how a config rotates positions, and how long a context that gives.

Both spellings are read: `rope_theta` beside `rope_scaling` (transformers 4) and `rope_parameters`
(transformers 5).
"""

from __future__ import annotations

import math

from inarch.errors import ModelError
from inarch.models.config_json import Config
from inarch.models.description import (
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    ProportionalScaling,
    Rotary,
    RotaryScaling,
    YarnScaling,
)

LAYER_TYPES = ("full_attention", "sliding_attention")
LONGROPE = ("longrope", "su")  # the second is what Phi-3 first called it


def rotary(config: Config, dim: int, theta: float = 10_000.0) -> Rotary:
    """theta: where the config gives none."""
    section = rotary_section(config)
    owner = section if section.get("rope_theta") is not None else config
    theta = owner.number("rope_theta", theta)
    if section.get("alpha"):  # Hunyuan's "dynamic", which is not: the base grows once and for all
        theta *= section.number("alpha") ** (dim / (dim - 2))
    return Rotary(dim, theta, _scaling(config, section, dim))


def rotary_section(config: Config) -> Config:
    """What a config says of its rotations; where it says so for each kind of layer, the same of all.

    Raises ModelError if the kinds differ: a family that can tell them apart asks for one of them.
    """
    section = config.section("rope_scaling") or config.section("rope_parameters")
    kinds = [section.section(kind).values for kind in LAYER_TYPES if section.get(kind)]
    if any(kind != kinds[0] for kind in kinds):
        raise ModelError("config.json rotates its layers differently, which this family does not")
    return Config(kinds[0], "rope_parameters of config.json") if kinds else section


def rotated(config: Config, head_dim: int, default: float = 1.0) -> int:
    """How many features of a head are rotated: an even number of them."""
    section, key = rotary_section(config), "partial_rotary_factor"
    if _kind(section) == "proportional":
        return head_dim
    owner = config if section.get(key) is None else section
    size = int(head_dim * owner.number(key, default))
    if size % 2 or not 0 < size <= head_dim:
        raise owner.error(key, f"a share of head_dim ({head_dim}) that is a whole, even number")
    return size


def context_length(config: Config, rotary: Rotary, default: int) -> int:
    """Tokens: what the config says, or more where a YaRN section stretches it."""
    stated = config.integer("max_position_embeddings", default)
    if isinstance(rotary.scaling, YarnScaling):
        return max(stated, round(rotary.scaling.original_context * rotary.scaling.factor))
    return stated


def _kind(section: Config) -> str:
    kind = str(section.get("rope_type") or section.get("type") or "default")
    # Phi-3 calls LongRoPE "yarn" in places.
    return "longrope" if kind in LONGROPE or section.get("long_factor") else kind


def _scaling(config: Config, section: Config, dim: int) -> RotaryScaling | None:
    match _kind(section):
        # Dynamic scaling begins beyond max_position_embeddings, where the context ends. The sections
        # of mrope differ between text and images only: the positions of text are equal in all.
        case "default" | "dynamic" | "mrope":
            return None
        case "linear":
            return LinearScaling(section.number("factor"))
        case "llama3":
            return Llama3Scaling(
                section.number("factor"),
                section.number("low_freq_factor"),
                section.number("high_freq_factor"),
                _original_context(config, section),
            )
        case "yarn":
            return _yarn(config, section)
        case "longrope":
            return _longrope(config, section, dim)
        case "proportional":
            share = section.number("partial_rotary_factor", 1.0)
            return ProportionalScaling(int(share * dim // 2), section.number("factor", 1.0))
        case other:
            raise ModelError(
                f"config.json asks for the rotary scaling {other!r}, which is not supported: "
                "default, linear, dynamic, llama3, yarn, longrope, mrope and proportional are"
            )


def _longrope(config: Config, section: Config, dim: int) -> LongRopeScaling:
    original = _original_context(config, section)
    stretched = config.integer("max_position_embeddings", original)
    factor = stretched / original
    if section.get("factor") is not None:
        factor = section.number("factor")
    magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    if section.get("attention_factor") is not None:
        magnitude = section.number("attention_factor")
    return LongRopeScaling(
        _factors(section, "short_factor", dim),
        _factors(section, "long_factor", dim),
        original,
        section.number("short_mscale", magnitude),  # Phi-3.5-MoE's own
        section.number("long_mscale", magnitude),
    )


def _factors(section: Config, key: str, dim: int) -> tuple[float, ...]:
    found = section.get(key)
    numbers = isinstance(found, list) and all(isinstance(f, int | float) and f > 0 for f in found)
    if not numbers or len(found) != dim // 2:
        raise section.error(key, f"a list of {dim // 2} numbers above 0, one for each rotated pair")
    return tuple(map(float, found))


def _yarn(config: Config, section: Config) -> YarnScaling:
    original = _original_context(config, section)
    stretched = config.integer("max_position_embeddings", original)
    factor = stretched / original if section.get("factor") is None else section.number("factor")
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
