"""The emulated instructions, by examples and beside the processor's own: see instructions.cpp."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "instructions.cpp"


@pytest.fixture(scope="module")
def program(fastest: str, compiling, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the widest instruction set that runs here."""
    made = tmp_path_factory.mktemp("instructions") / "instructions"
    flags = compiling.VARIANTS[fastest].flags
    command = [compiling.CXX, "-std=c++20", "-O1", "-ffp-contract=off", *flags]
    subprocess.run([*command, f"-I{compiling.SOURCES}", str(SOURCE), "-o", str(made)], check=True)
    return made


def test_they_compute_what_their_manual_says_and_what_this_processor_does(program: Path) -> None:
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    found = said.splitlines()
    assert len(found) >= 8
    assert [line for line in found if not line.startswith("right")] == []


def test_a_tile_that_is_not_configured_ends_the_process(program: Path) -> None:
    done = subprocess.run([program, "misuse"], check=False, capture_output=True, text=True)
    assert done.returncode < 0
    assert "a tile is configured before it is used" in done.stderr
