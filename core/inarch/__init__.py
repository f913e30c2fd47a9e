"""Inarch: serve large language models on any hardware.

    from inarch import Engine, SamplingParams

    with Engine() as engine:
        print(engine.generate("The capital of France is", SamplingParams(temperature=0))[0].text)

The names below are imported when they are first used, so that `import inarch` costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from inarch.version import __version__

if TYPE_CHECKING:
    from inarch.config import EngineConfig
    from inarch.engine.async_engine import AsyncEngine
    from inarch.engine.engine import Engine
    from inarch.sampling import SamplingParams

_PUBLIC = {
    "AsyncEngine": "inarch.engine.async_engine",
    "Engine": "inarch.engine.engine",
    "EngineConfig": "inarch.config",
    "SamplingParams": "inarch.sampling",
}

__all__ = ["AsyncEngine", "Engine", "EngineConfig", "SamplingParams", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'inarch' has no attribute {name!r}")
