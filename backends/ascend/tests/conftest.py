"""The simulated NPU as fixtures. Tests that need it are skipped, with the reason, without the wheel."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from inarch.hal.device import Device
from inarch_ascend import kernels
from inarch_ascend.simulation import unavailable

HERE = Path(__file__).parent

# Not by sys.path, which would move the namespace `tests` elsewhere.
spec = importlib.util.spec_from_file_location(
    "simulated_machine", HERE / "simulated_machine" / "__init__.py"
)
assert spec is not None
assert spec.loader is not None
sys.modules["simulated_machine"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)


@pytest.fixture
def npu() -> Device:
    """The simulated NPU, opened through the backend."""
    if reason := unavailable():
        pytest.skip(f"{reason}: see the README of backends/ascend")
    from simulated_machine.plugin import backend

    return backend().open(0)


@pytest.fixture
def float32_attention(npu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention takes float32 too, which no NPU does: tokens can then be compared without rounding."""
    from inarch_ascend.simulation import rules

    both = (torch.bfloat16, torch.float32)
    monkeypatch.setattr(rules, "attention_dtypes", both)
    monkeypatch.setattr(kernels, "ATTENTION_DTYPES", both)
