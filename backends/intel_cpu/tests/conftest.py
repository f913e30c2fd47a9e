"""Compiles the kernels of this checkout once for all tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from inarch_intel_cpu.native import Native

PROJECT = Path(__file__).parent.parent
COMPILING = pytest.StashKey[ModuleType]()
compiler_says = ""


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is collected: also for processes that the tests start."""
    global compiler_says
    spec = importlib.util.spec_from_file_location("compile_kernels", PROJECT / "compile_kernels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config.stash[COMPILING] = module
    try:
        os.environ["INARCH_INTEL_CPU_OBJECTS"] = str(module.compiled_for_tests())
    except RuntimeError as error:
        compiler_says = str(error)


@pytest.fixture(scope="session")
def fastest() -> str:
    """The variant that is chosen on this processor."""
    from inarch_intel_cpu.native import runnable

    if compiler_says:
        pytest.skip(compiler_says)
    if not runnable():
        pytest.skip("this processor runs no variant")
    return runnable()[0]


@pytest.fixture(params=["avx2", "fastest"])
def native(request, fastest):
    """The kernels of the lowest and of the highest variant that run here, with two threads."""
    if request.param == "fastest" and fastest == "avx2":
        pytest.skip("this processor has nothing above avx2")
    yield from _two_threads(fastest if request.param == "fastest" else request.param)


@pytest.fixture(params=["avx2", "avx512", "avx512_bf16", "amx", "bf16_emulated", "amx_emulated"])
def each_native(request, fastest):
    """The kernels of every variant that runs here, and of those that emulate the others."""
    from inarch_intel_cpu.native import runnable

    if request.param not in runnable() and not request.param.endswith("_emulated"):
        pytest.skip(f"this processor has no {request.param}")
    yield from _two_threads(request.param)


def _two_threads(variant: str) -> Iterator[Native]:
    from inarch_intel_cpu.native import load

    loaded = load(variant)
    loaded.set_threads(2)
    yield loaded
    loaded.set_threads(1)


@pytest.fixture(scope="session")
def compiling(request: pytest.FixtureRequest) -> ModuleType:
    """compile_kernels.py."""
    return request.config.stash[COMPILING]


@pytest.fixture
def runs_here() -> None:
    """Skips, with the reason, what needs compiled kernels and a processor that runs them."""
    from inarch_intel_cpu.backend import IntelCpuBackend

    probe = IntelCpuBackend().probe()
    if not probe.score:
        pytest.skip(compiler_says or "; ".join(probe.reasons))


@pytest.fixture
def installed(runs_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point of this package, as an installer would leave it."""
    info = tmp_path / "inarch_intel_cpu-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: inarch-intel-cpu\nVersion: 0.1.0\n"
    )
    (info / "entry_points.txt").write_text("[inarch]\nintel_cpu = inarch_intel_cpu.plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
