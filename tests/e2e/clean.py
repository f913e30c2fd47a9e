"""Environments as users have them: packages installed from wheels, and nothing of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

from .process import INARCH

OURS = {**os.environ, "OMP_NUM_THREADS": "1"}
# Packages are built by what is installed here, and nothing is fetched.
CLEAN = {
    **OURS,
    "PYTHONPATH": "",
    "PIP_NO_BUILD_ISOLATION": "0",
    "PIP_NO_DEPS": "1",
    "PIP_NO_INDEX": "1",
}
MODULES = ("pip", "pytest")  # that are commands too


def generate(name: str, folder: Path) -> Path:
    """Write a new backend package."""
    command = [INARCH, "new-backend", name, "--path", str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=OURS)
    return folder


def build(folder: Path, wheels: Path) -> Path:
    """The wheel of a package's folder."""
    command = ["build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(folder)]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, env=OURS)
    return max(wheels.glob("*.whl"), key=lambda wheel: wheel.stat().st_mtime_ns)


def environment(home: Path, wheels: Iterable[Path]) -> Path:
    """The bin folder of a new environment with these wheels.

    What else they need is found where these tests find it.
    """
    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries))
    programs = home / "bin"
    for module in MODULES:
        (programs / module).write_text(f'#!/bin/sh\nexec "{programs}/python" -m {module} "$@"\n')
        (programs / module).chmod(0o755)
    command = [str(programs / "pip"), "install", "--force-reinstall", *map(str, wheels)]
    subprocess.run(command, check=True, capture_output=True, env=CLEAN)
    return programs
