"""A kernel that gets no memory raises, on whichever thread it was; the process and its threads go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("lack_of_memory.py")


@pytest.mark.parametrize("variant", ["avx2", "fastest"])
def test_a_kernel_without_memory_raises_and_the_next_one_works(variant: str, fastest: str) -> None:
    if variant == "fastest" and fastest == "avx2":
        pytest.skip("this processor has nothing above avx2")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), fastest if variant == "fastest" else variant],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
