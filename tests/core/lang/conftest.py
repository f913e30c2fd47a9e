from __future__ import annotations

from collections.abc import Iterator

import pytest

import inarch.lang as sgl
from inarch import Engine, EngineConfig
from inarch.lang import Runtime, set_default_backend


@pytest.fixture(scope="session")
def llm() -> Iterator[sgl.Engine]:
    """The bundled model in a process of its own, deterministic."""
    with sgl.Engine(dtype="float32", random_seed=0) as llm:
        yield llm


@pytest.fixture(scope="session")
def runtime(llm: sgl.Engine) -> Runtime:
    """Programs run on it that are not told."""
    return llm.runtime


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The same in this process."""
    with Engine(EngineConfig(dtype="float32", random_seed=0)) as engine:
        yield engine


@pytest.fixture(autouse=True)
def default_backend(runtime: Runtime) -> Iterator[None]:
    set_default_backend(runtime)
    yield
    set_default_backend(None)
