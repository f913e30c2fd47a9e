"""Every kernel, compiled ahead of time for GPUs that are not here, fits their registers and memory.

Those of AMD are compiled by the tests of backends/amd.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, not with this one")

from inarch_triton.tiles import SHARED_MEMORY

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton")


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_no_kernel_spills_or_needs_more_shared_memory_than_there_is(arch: str, cache: Path) -> None:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = os.environ | {
        "PYTHONPATH": path, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache),
    }  # fmt: skip
    command = [sys.executable, str(HERE / "compile_kernels.py"), arch]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)[arch]
    assert len(kernels) >= 8
    narrow = [name for name in kernels if "fp8" in name]
    assert len(narrow) == {"sm_90": 7, "sm_100": 6}.get(arch, 0)
    for name, usage in kernels.items():
        assert usage["spilled"] == 0, (name, usage)
        assert usage["registers"] <= 255, (name, usage)
        assert usage["shared"] <= SHARED_MEMORY[arch] * 1024, (name, usage)
        told = int(name.startswith("specialized"))  # a waiting warp reads what it is to run
        assert usage["bytewise"] == told, f"{name} reads shared memory one byte at a time"
        waits = usage["waits"] > 0
        assert waits == usage["early"], f"{name} may start before the kernel ahead has ended"
        assert usage["hasty"] == 0, f"{name} writes before the kernel ahead has ended"
        if name.startswith("attention") and name.endswith("short"):
            # Several programs share a processor, so that one loads while another computes.
            assert usage["registers"] * usage["warps"] <= 4 * 128, (name, usage)
            assert 2 * usage["shared"] <= SHARED_MEMORY[arch] * 1024, (name, usage)
