"""Makes the fake accelerator importable here too: see tests/fake_accelerator/conftest.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "fake_accelerator" / "inarch_fake"

if "inarch_fake" not in sys.modules:
    spec = importlib.util.spec_from_file_location("inarch_fake", PACKAGE / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["inarch_fake"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
