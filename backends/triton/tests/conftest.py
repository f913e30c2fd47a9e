"""Without an accelerator, Triton's interpreter plays the device: a few small tiles, no bfloat16 units.

The same tests run on an accelerator, at real sizes and in bfloat16 too.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch import Tensor

from inarch.hal.device import Device, DeviceInfo, MemoryStats, ReadyTransfer, Transfer
from inarch_triton.kernels import NARROW, keeps_fp8

ON_ACCELERATOR = torch.accelerator.is_available()
if not ON_ACCELERATOR:
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined


class PlainDevice(Device):
    """torch's current accelerator, or the CPU: enough of a device for kernels and for the oracle."""

    def __init__(self) -> None:
        self.torch_device = torch.device("cpu")
        arch = "sm_90"
        if ON_ACCELERATOR:
            self.torch_device = torch.device(torch.accelerator.current_accelerator().type, 0)
            arch = accelerator_arch()
        self.info = DeviceInfo("test device", arch, memory_bytes=1 << 30)

    def upload(self, host: np.ndarray) -> Tensor:
        return torch.from_numpy(host.copy()).to(self.torch_device)

    def download(self, tensor: Tensor) -> Transfer:
        return ReadyTransfer(tensor.detach().cpu().clone().numpy())

    def memory(self) -> MemoryStats:
        raise NotImplementedError

    def reset_peak_memory(self) -> None:
        raise NotImplementedError

    def synchronize(self) -> None:
        return None


def accelerator_arch() -> str:
    properties = torch.cuda.get_device_properties(0)
    if torch.version.hip:
        return str(properties.gcnArchName)
    return f"sm_{properties.major}{properties.minor}"


@pytest.fixture(scope="session")
def device() -> PlainDevice:
    return PlainDevice()


@pytest.fixture
def fp8(device: PlainDevice) -> torch.dtype:
    """The dtype of narrow pages, where the device has them."""
    support = keeps_fp8(device.info.arch)
    if not support:
        pytest.skip(support.why)
    return NARROW
