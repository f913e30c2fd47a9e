from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .clean import build
from .process import ServerProcess


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """`inarch serve`, shared by tests that leave it as they found it.

    In float32, where an answer does not depend on what else is in its step, or in the cache.
    """
    with ServerProcess("--dtype", "float32") as process:
        yield process


@pytest.fixture(scope="session")
def core_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install inarch` would bring."""
    return build(Path(__file__).parents[2], tmp_path_factory.mktemp("core"))
