"""Every kernel, compiled ahead of time for AMD's GPUs, fits their registers and their local memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, not with this one")

from inarch_amd.architectures import ARCHITECTURES
from inarch_triton.kernels import keeps_fp8
from inarch_triton.tiles import SHARED_MEMORY

PROGRAM = Path(__file__).parents[2] / "triton/tests/compile_kernels.py"
MOST_THREADS = 1024  # of a program
REGISTERS = {64: 512, 32: 256}  # that a wave can address, by its lanes


def compiled(arch: str, cache: Path) -> dict[str, dict[str, int]]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache),
    }  # fmt: skip
    command = [sys.executable, str(PROGRAM), arch]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout)[arch]
    return found


def may_spill(arch: str, kernel: str) -> bool:
    """gfx1100 has half the registers, and no matrix instructions for float32."""
    wide = any(size in kernel for size in ("D256", "fp32"))
    return arch == "gfx1100" and kernel.startswith("attention") and wide


@pytest.mark.timeout(600)  # half a minute, if nothing else runs
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_kernel_spills_or_needs_more_local_memory_than_there_is(
    arch: str, tmp_path: Path
) -> None:
    kernels = compiled(arch, tmp_path)
    assert len(kernels) >= 37
    assert len([name for name in kernels if "fp8" in name]) == (6 if keeps_fp8(arch) else 0)
    for name, usage in kernels.items():
        assert usage["lanes"] == ARCHITECTURES[arch].lanes
        assert usage["spilled"] == 0 or may_spill(arch, name), (name, usage)
        assert usage["threads"] <= MOST_THREADS, (name, usage)
        assert usage["registers"] <= REGISTERS[usage["lanes"]], (name, usage)
        assert usage["shared"] <= SHARED_MEMORY[arch] * 1024, (name, usage)
        assert usage["waits"] == usage["early"] == 0, f"{name} asks for what only NVIDIA has"
        assert usage["waves"] >= 1, (name, usage)
        assert usage["atomics"] == 0 or name.startswith("add_at"), (
            f"{name} waits for other programs"
        )
        if name in ("attention D128 page16 bf16 short", "attention D128 page32 fp16 short"):
            # Four waves on each SIMD cover the latency of the memory.
            assert usage["waves"] >= 4, (name, usage)
            assert 2 * usage["shared"] <= SHARED_MEMORY[arch] * 1024, (name, usage)
