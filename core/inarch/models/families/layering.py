"""Reads which kind each layer of a config is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inarch.models.families.config import Config


def layer_types(
    config: Config,
    known: Sequence[str],
    *,
    key: str = "layer_types",
    default: Callable[[Config], list[str]],
) -> list[str]:
    """The list under `key`, of which each is known; what `default` says if there is none."""
    found = config.get(key)
    if found is None:
        return default(config)
    if not isinstance(found, list) or not found or not set(map(str, found)) <= set(known):
        raise config.error(key, f"a list out of {', '.join(known)}")
    layers = config.get("num_hidden_layers", len(found))
    if layers != len(found):
        raise config.error(key, f"a list of {layers} kinds, one for each layer")
    return [str(kind) for kind in found]
