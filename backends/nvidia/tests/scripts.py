"""The scripts of ci/, as modules: they lie in no package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

CI = Path(__file__).parents[3] / "ci"


def script(name: str) -> ModuleType:
    """ci/NAME.py, with what it imports from beside it."""
    if str(CI) not in sys.path:
        sys.path.insert(0, str(CI))
    return importlib.import_module(name)
