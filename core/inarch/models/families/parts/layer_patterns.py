"""Which layers of a stack see all tokens, and which a window that slides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from inarch.models.config_json import Config

T = TypeVar("T")


def layer_types(config: Config, default: Sequence[str]) -> Sequence[str]:
    """Which layers slide: "full_attention" or "sliding_attention" for each, as `default` has it."""
    return listed(config, "layer_types", default, ("full_attention", "sliding_attention"))


def listed(config: Config, key: str, default: Sequence[T], known: Sequence[T]) -> Sequence[T]:
    """One of the known values for each layer; missing or null: the default."""
    found = config.get(key)
    if found is None:
        return default
    right = isinstance(found, list) and len(found) == len(default)
    if not right or any(value not in known for value in found):
        raise config.error(key, f"a list of {len(default)} out of {', '.join(map(str, known))}")
    return list(found)


def windows(config: Config, default: Sequence[str], window: int | None) -> list[int | None]:
    """A window for each layer that slides, by `layer_types`."""
    types = layer_types(config, default)
    return [window if layer_type == "sliding_attention" else None for layer_type in types]


def every(interval: int, layers: int) -> list[str]:
    """The layer types of a stack in which each `interval`-th layer sees all, and others slide."""
    return [
        "sliding_attention" if (index + 1) % interval else "full_attention"
        for index in range(layers)
    ]


def qwen_windows(config: Config, layers: int) -> list[int | None]:
    """Qwen's way to say which layers slide: `layer_types`, or all from `max_window_layers` on."""
    slides = config.flag("use_sliding_window", False)
    window = config.optional_integer("sliding_window", 4096) if slides else None
    if window is None:
        return [None] * layers
    full = config.get("max_window_layers", 28)
    if not isinstance(full, int):
        raise config.error("max_window_layers", "a whole number")
    default = ["full_attention" if index < full else "sliding_attention" for index in range(layers)]
    return windows(config, default, window)
