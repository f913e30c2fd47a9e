"""The simulated NPU as fixtures. Tests that need it are skipped, with the reason, without the wheel."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from inarch.hal.device import Device
from inarch_ascend import kernels

HERE = Path(__file__).parent

# Not by sys.path, which would move the namespace `tests` elsewhere.
spec = importlib.util.spec_from_file_location(
    "npu_simulation", HERE / "npu_simulation" / "__init__.py"
)
assert spec is not None
assert spec.loader is not None
sys.modules["npu_simulation"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

from npu_simulation import wheel  # noqa: E402


def unavailable() -> str | None:
    """Why there can be no simulation in this process."""
    taken = torch._C._get_privateuse1_backend_name()
    if taken not in ("privateuseone", "npu"):
        return f"torch's one place for other devices is taken by {taken!r}: run pytest backends/ascend"
    return wheel.missing()


@pytest.fixture
def npu() -> Device:
    """The simulated NPU, opened through the backend."""
    if reason := unavailable():
        pytest.skip(reason)
    from npu_simulation.memory import machine
    from npu_simulation.plugin import backend

    device = backend().open(0)
    machine.calls.clear()
    return device


@pytest.fixture
def float32_attention(npu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention takes float32 too, which no NPU does: tokens can then be compared without rounding."""
    from npu_simulation import rules

    both = (torch.bfloat16, torch.float32)
    monkeypatch.setattr(rules, "attention_dtypes", both)
    monkeypatch.setattr(kernels, "ATTENTION_DTYPES", both)
