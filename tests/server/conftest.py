from __future__ import annotations

from collections.abc import Iterator

import pytest

from .harness import Server
from .standin import StandIn


@pytest.fixture
def server() -> Iterator[Server]:
    """A server around a stand-in of its own."""
    with Server(StandIn()) as server:
        yield server
