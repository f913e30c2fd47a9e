"""The functions of csrc/functions.h beside those of the C++ library in double precision."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "functions.cpp"


def test_functions_are_as_near_as_they_say(native, compiling, tmp_path: Path) -> None:
    program, flags = tmp_path / "functions", compiling.VARIANTS[native.variant].flags
    include = f"-I{compiling.SOURCES}"
    command = [compiling.CXX, "-std=c++20", "-O2", *flags, include, str(SOURCE), "-o", str(program)]
    subprocess.run(command, check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    of_exp, of_tanh, of_sigmoid = map(float, said.split())
    assert of_exp < 1.3
    assert of_tanh < 2e-7
    assert of_sigmoid < 1e-7
