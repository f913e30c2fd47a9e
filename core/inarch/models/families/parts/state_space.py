"""What families with Mamba-2 mixers share in reading a config, and the names of a mixer's tensors."""

from __future__ import annotations

import math
from typing import Any

from inarch.models.config_json import Config
from inarch.models.families.parts.tensor_names import Table


def names(canonical: str, source: str) -> Table:
    """The tensors of a mixer: canonical is its name in a layer, source the checkpoint's for it."""
    theirs = {
        "project": "in_proj",
        "conv": "conv1d",
        "norm": "norm",
        "out": "out_proj",
        "a_log": "A_log",
        "dt_bias": "dt_bias",
        "skip": "D",
    }
    return {f"{canonical}.{name}": (f"{source}.{there}",) for name, there in theirs.items()}


def time_step_limit(config: Config) -> tuple[float, float]:
    """Bounds of the time step; missing or null: none."""
    found = config.get("time_step_limit") or (0.0, math.inf)
    wanted = "two numbers from 0 on, the lower one first"
    try:
        low, high = (float(_plain(bound)) for bound in found)
    except (TypeError, ValueError):
        raise config.error("time_step_limit", wanted) from None
    if not 0 <= low <= high:
        raise config.error("time_step_limit", wanted)
    return low, high


def _plain(bound: Any) -> Any:
    """JSON has no infinity: transformers writes {"__float__": "Infinity"}."""
    return bound.get("__float__") if isinstance(bound, dict) else bound
