"""Where torch's operations are entered by name: see aten.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Array = Any  # jax.Array, tracer or numpy array
TABLE: dict[str, Callable[..., Any]] = {}


def named(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function under torch's names for it, by default its own."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        TABLE.update(dict.fromkeys(names or (function.__name__,), function))
        return function

    return enter


def is_dtype(x: Any) -> bool:
    return isinstance(x, torch.dtype)
