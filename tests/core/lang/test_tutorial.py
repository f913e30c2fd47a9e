"""The tutorial's blocks run, one after the other, as a reader would run them."""

from __future__ import annotations

import re
from pathlib import Path

import inarch.lang as sgl

TUTORIAL = Path(__file__).parents[3] / "docs" / "frontend_language.md"


def test_every_block_of_the_tutorial_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 8
    try:
        exec(
            compile("\n".join(blocks), str(TUTORIAL), "exec", dont_inherit=True),
            {"__name__": "tutorial"},
        )
    finally:
        sgl.set_default_backend(None)
