"""Loading takes the memory that the model takes, and next to nothing more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "ci" / "bench_loading.py"
LIMIT = 1.15


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured through /proc")
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_the_peak_is_little_above_the_size_of_the_checkpoint(kind: str) -> None:
    command = [sys.executable, str(SCRIPT), "--gb", "0.2", "--shards", "2", "--kind", kind]
    printed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    found = json.loads(printed.stdout.splitlines()[-1])
    assert found["size"] > 190e6
    assert found["size"] <= found["own"] * 1.02  # it was loaded at all
    assert found["own"] < LIMIT * found["size"]
