from __future__ import annotations

from collections.abc import Iterator

import pytest

from .process import ServerProcess


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """`inarch serve`, shared by tests that leave it as they found it."""
    with ServerProcess() as process:
        yield process
