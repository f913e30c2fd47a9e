"""The backend on a simulated machine: the same `AscendBackend`, which finds device nodes in a folder."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inarch.hal.probing import Host
from inarch.hookspecs import hookimpl
from inarch_ascend.backend import CONTROL_NODES, AscendBackend
from inarch_ascend.simulation import install
from inarch_ascend.simulation.wheel import wheel_version

if TYPE_CHECKING:
    from inarch.hal.backend import Backend
    from inarch.hal.device import Device

INARCH_API = (1, 0)
CANN = "usr/local/Ascend/cann"


class SimulatedBackend(AscendBackend):
    def open(self, index: int) -> Device:
        install()
        return super().open(index)


@functools.cache
def backend() -> SimulatedBackend:
    root = Path(folder().name)
    write_machine(root)
    return SimulatedBackend(Host(root, [str(root / "site")], {"ASCEND_HOME_PATH": f"/{CANN}"}))


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Goes when the process does."""
    return tempfile.TemporaryDirectory(prefix="simulated-npu-")


def write_machine(root: Path) -> None:
    """What a machine with one NPU, CANN and a fitting torch-npu leaves on its disk."""
    release = wheel_version()
    files = {
        **{f"dev/{name}": "" for name in ("davinci0", *CONTROL_NODES)},
        f"{CANN}/aarch64-linux/ascend_toolkit_install.info": "version=9.0.0\n",
        f"site/torch_npu-{release}.dist-info/METADATA": f"Name: torch-npu\nVersion: {release}\n",
        f"site/torch-{release}.dist-info/METADATA": f"Name: torch\nVersion: {release}\n",
    }
    for place, text in files.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)


@hookimpl
def inarch_backends() -> Sequence[Backend]:
    return [backend()]
