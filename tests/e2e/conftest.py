from __future__ import annotations

from collections.abc import Iterator

import pytest

from .process import ServerProcess


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """`inarch serve`, shared by tests that leave it as they found it.

    In float32, where an answer does not depend on what else is in its step, or in the cache.
    """
    with ServerProcess("--dtype", "float32") as process:
        yield process
