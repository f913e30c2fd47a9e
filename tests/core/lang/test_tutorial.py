"""The blocks of the pages on programs run, one after the other, as a reader would run them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import inarch.lang as sgl

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(("name", "most"), [("frontend_language", 12), ("offline_engine", 2)])
def test_every_block_of_the_page_runs(name: str, most: int) -> None:
    path = DOCS / f"{name}.md"
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > most
    try:
        exec(
            compile("\n".join(blocks), str(path), "exec", dont_inherit=True),
            {"__name__": "tutorial"},
        )
    finally:
        sgl.set_default_backend(None)
