"""An Ascend NPU on the CPU, made of the real torch-npu wheel: what tests the backend without hardware.

See wheel.py for what comes from the wheel, operators.py for what does not. It needs the wheel unpacked,
in a folder that INARCH_TORCH_NPU names, and one process can have no other simulated device.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inarch.hal.device import Device


def unavailable() -> str | None:
    """Why there can be no simulation in this process; None if there can."""
    import torch

    from inarch_ascend.simulation.wheel import missing

    taken = torch._C._get_privateuse1_backend_name()
    if taken not in ("privateuseone", "npu"):
        return f"torch's one place for other devices is taken by {taken!r} in this process"
    if "torch_npu" in sys.modules and not _installed.cache_info().currsize:
        return "the real torch-npu is loaded"
    return missing()


def device() -> Device | None:
    """The simulated NPU; None where there can be none."""
    if unavailable():
        return None
    from inarch_ascend.device import AscendDevice

    install()
    return AscendDevice(0, sys.modules["torch_npu"])


def install() -> None:
    """Put the simulation in the place of torch_npu, for the rest of this process."""
    _installed()


@functools.cache
def _installed() -> list[Any]:
    from inarch_ascend.simulation.runtime import install
    from inarch_ascend.simulation.wheel import wheel_folder

    folder = wheel_folder()
    assert folder is not None
    return install(folder)
