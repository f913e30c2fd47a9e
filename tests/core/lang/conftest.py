from __future__ import annotations

from collections.abc import Iterator

import pytest

from inarch.lang import Runtime, set_default_backend


@pytest.fixture(scope="session")
def runtime() -> Iterator[Runtime]:
    """The bundled model, deterministic."""
    with Runtime(dtype="float32", random_seed=0) as runtime:
        yield runtime


@pytest.fixture(autouse=True)
def default_backend(runtime: Runtime) -> Iterator[None]:
    set_default_backend(runtime)
    yield
    set_default_backend(None)
