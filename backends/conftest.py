"""The backend packages need not be installed to be tested: their folders are put on sys.path."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent

sys.path[:0] = [str(project.parent) for project in sorted(HERE.glob("*/pyproject.toml"))]
