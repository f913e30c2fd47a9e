"""JAX's CPU device plays four chips; XLA is told to compile fast rather than well."""

from __future__ import annotations

import gc
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[1]
CHIPS = 4
FAST = (
    f"--xla_force_host_platform_device_count={CHIPS} --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_collective_call_terminate_timeout_seconds=600"  # where others use the machine too
)
HAS_JAX = importlib.util.find_spec("jax") is not None
if HAS_JAX:  # read when JAX is imported
    programs = tempfile.TemporaryDirectory(prefix="inarch-xla-")
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": FAST,
        "JAX_COMPILATION_CACHE_DIR": programs.name,
    }


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that makes the package look installed, as pip would."""
    folder = tmp_path_factory.mktemp("installed")
    info = folder / "inarch_tpu-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: inarch-tpu\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[inarch]\ntpu = inarch_tpu.plugin\n")
    return folder


@pytest.fixture
def start(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts an engine for a model folder, on one chip if nothing else is said."""
    import jax

    from inarch.config import EngineConfig
    from inarch.engine.engine import Engine
    from inarch_tpu import device

    monkeypatch.syspath_prepend(installed)

    def start(folder: Path | None, *, chips: int = 1, **options: Any) -> Engine:
        monkeypatch.setattr(device, "open_device", lambda: device.XlaDevice(jax.devices()[:chips]))
        small = {"kv_tokens": 2048, "max_running_requests": 4, "max_step_tokens": 64}
        settings: dict[str, Any] = {"backend": "tpu", "dtype": "float32"} | small | options
        model = None if folder is None else str(folder)
        return Engine(EngineConfig(model=model, **settings))

    yield start
    gc.collect()
