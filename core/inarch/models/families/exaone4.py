"""EXAONE 4: norms of heads and after each half; layers that see all tokens know no positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, Layer
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=102400,
    intermediate_size=16384,
    max_position_embeddings=2048,
    kv_heads=32,
    eps=1e-5,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    window = config.optional_integer("sliding_window", 4096)
    windows = layer_patterns.windows(config, _types(config, window), window)
    norm, mlp = llama_like.norm(config, DEFAULTS), llama_like.mlp(config, DEFAULTS)
    attention = replace(llama_like.attention(config, DEFAULTS), qk_norm=norm)
    # Without windows at all, every layer is rotated.
    mixers = (
        replace(attention, window=own, rotary=attention.rotary if own or not window else None)
        for own in windows
    )
    layers = [Layer(mixer, mlp, None, None, norm, norm) for mixer in mixers]
    return llama_like.model(config, DEFAULTS, layers, norm)


def _types(config: Config, window: int | None) -> list[str]:
    """The pattern is an interval, or letters as "LLLG" whose number is the interval."""
    layers = llama_like.layer_count(config, DEFAULTS)
    pattern = config.get("sliding_window_pattern", 4)
    if window is None or not pattern:
        return ["full_attention"] * layers
    if isinstance(pattern, str):
        types = {"L": "sliding_attention", "G": "full_attention"}
        if set(pattern) - {*types}:
            raise config.error("sliding_window_pattern", "a whole number, or letters L and G")
        found = [types[pattern[index % len(pattern)]] for index in range(layers)]
        return [*found[:-1], "full_attention"]
    return layer_patterns.every(config.integer("sliding_window_pattern", 4), layers)


NAMES = tensor_names.Naming({**tensor_names.LAYER_NAMES, **tensor_names.POST_NORM_NAMES})
FAMILY = Family("exaone4", ("Exaone4ForCausalLM",), describe, NAMES)
