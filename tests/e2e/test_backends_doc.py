"""The tutorial on writing a backend, followed to the letter: every block of it is run, in its order."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .clean import CLEAN, environment

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "backends.md"
# ```python blocks that name a file are written to it, or put at its end; others are run.
RUN = {"bash": ["bash", "-ec"], "python": ["python", "-c"]}
BLOCK = re.compile(
    r"^```(python|bash)\n(?:# (\S+\.py)(, at the end of \w+)?\n)?(.*?)^```", re.M | re.S
)


@pytest.mark.timeout(600)
def test_who_follows_the_tutorial_has_a_backend_that_serves_and_keeps_its_promises(
    tmp_path: Path, core_wheel: Path
) -> None:
    programs = environment(tmp_path / "venv", [core_wheel])
    variables = {**CLEAN, "PATH": f"{programs}:{CLEAN['PATH']}"}
    package = tmp_path / "inarch-acme"
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) > 15
    for number, (language, file, at_end, text) in enumerate(blocks):
        if file and at_end:
            with (package / file).open("a", encoding="utf-8") as written:
                written.write("\n" + text)
            continue
        if file:
            assert not (package / file).exists()
            (package / file).write_text(text, encoding="utf-8")
            continue
        ended = subprocess.run(
            [*RUN[language], text],
            cwd=package if package.exists() else tmp_path,
            env=variables,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, f"block {number}:\n{text}\n{ended.stdout}\n{ended.stderr}"
    assert list(package.glob("dist/*.whl"))
