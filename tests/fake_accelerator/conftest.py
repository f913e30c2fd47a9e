"""Makes `inarch_fake` importable. Not by sys.path: that would move the namespace `tests` elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "inarch_fake"

spec = importlib.util.spec_from_file_location("inarch_fake", PACKAGE / "__init__.py")
assert spec is not None
assert spec.loader is not None
sys.modules["inarch_fake"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
