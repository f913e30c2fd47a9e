"""Find AMD GPUs by what the amdgpu driver shows in /dev and /sys, without loading any ROCm library."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe
from inarch.hal.probing import Host
from inarch_amd.architectures import known

if TYPE_CHECKING:
    from inarch.hal.device import Device

SCORE = 100
TRITON = ("triton", "triton-rocm", "pytorch-triton-rocm")  # its names beside builds of torch
PCI_VENDOR, PCI_CLASSES = "0x1002", ("0x03", "0x12")  # display, processing accelerator
TOPOLOGY = "sys/class/kfd/kfd/topology/nodes"
HIDING = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


class Gpu(NamedTuple):
    arch: str  # "gfx942"
    node: Path  # its render node in /dev/dri


class AmdBackend(Backend):
    name = "amd"

    def __init__(self, host: Host | None = None) -> None:
        self._host = Host() if host is None else host

    def probe(self) -> Probe:
        for variable in HIDING:
            if (value := self._host.environment.get(variable)) in ("", "-1"):
                return Probe(0, reasons=(f"{variable}={value} hides every GPU",))
        gpus, libraries = list(self._gpus()), self._libraries()
        devices = tuple(f"AMD GPU {gpu.arch}" for gpu in gpus if gpu.node.exists())
        troubles = list(self._troubles(gpus, libraries))
        if not devices and not troubles:
            return Probe(0, reasons=("no AMD GPU: no /dev/kfd, and none on the PCI bus",))
        score = 0 if troubles else SCORE
        return Probe(score, devices, tuple(troubles), hardware_seen=True, libraries=libraries)

    def open(self, index: int) -> Device:
        probe = self.probe()
        if not probe.score:
            raise BackendError("; ".join(probe.reasons))
        from inarch_amd.device import AmdDevice  # imports torch and triton

        return AmdDevice(index)

    def simulation(self) -> Device | None:
        """An MI300 in Triton's interpreter, if Triton is installed and no GPU is here.

        For a process of its own: Triton then interprets every kernel.
        """
        if find_spec("triton") is None or self.probe().score:
            return None
        os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported
        from inarch_amd.kernels import kernels
        from inarch_triton.gpu.simulation import SimulatedGpu

        return SimulatedGpu("gfx942", kernels)

    def environment(self) -> Mapping[str, str]:
        # Arguments of launches are then written to the device's own memory, not read over the bus:
        # AMD's guide to tuning the MI300X.
        return {"HIP_FORCE_DEV_KERNARG": "1"}

    def _gpus(self) -> Iterator[Gpu]:
        """What the driver runs, in its order; nodes without SIMD units are CPUs."""
        folders = [path for path in self._host.glob(f"{TOPOLOGY}/*") if path.name.isdigit()]
        for folder in sorted(folders, key=lambda path: int(path.name)):
            text = self._host.read(folder / "properties")
            facts = {key: int(value) for key, value in re.findall(r"^(\w+) (\d+)$", text, re.M)}
            if facts.get("simd_count"):
                render = self._host.root / f"dev/dri/renderD{facts.get('drm_render_minor', 0)}"
                yield Gpu(_arch(facts.get("gfx_target_version", 0)), render)

    def _troubles(self, gpus: Sequence[Gpu], libraries: Mapping[str, str]) -> Iterator[str]:
        kfd = self._host.root / "dev/kfd"
        if not gpus and self._on_pci_bus():
            yield "an AMD GPU is on the PCI bus, but the amdgpu driver does not run it: install ROCm's"
        if not gpus:
            return
        if not kfd.exists() or not any(gpu.node.exists() for gpu in gpus):
            archs = ", ".join(gpu.arch for gpu in gpus)
            yield (
                f"the driver runs {archs}, but /dev/kfd or /dev/dri is missing here: give them to "
                "this container (--device /dev/kfd --device /dev/dri)"
            )
            return
        for node in (kfd, *(gpu.node for gpu in gpus if gpu.node.exists())):
            if not self._host.access(node, os.R_OK | os.W_OK):
                place = node.relative_to(self._host.root)
                yield f"no access to /{place}: add the user to the groups render and video"
        if "torch" not in libraries:
            yield "torch is not installed"
        elif libraries.get("HIP of torch") == "none":
            yield (
                f"the driver is present, but torch {libraries['torch']} has no ROCm: install a ROCm "
                "build of torch (see pytorch.org)"
            )
        elif "triton" not in libraries:
            yield (
                "triton, in which the kernels are written, is not installed: ROCm builds of torch "
                "bring it, as triton-rocm or pytorch-triton-rocm"
            )
        unknown = [known(gpu.arch) for gpu in gpus if gpu.node.exists() and not known(gpu.arch)]
        if len(unknown) == sum(gpu.node.exists() for gpu in gpus):
            yield unknown[0].why

    def _on_pci_bus(self) -> bool:
        return any(each.kind.startswith(PCI_CLASSES) for each in self._host.pci(PCI_VENDOR))

    def _libraries(self) -> dict[str, str]:
        version = self._host.read("opt/rocm/.info/version")
        found = {"ROCm": version} if version else {}
        return found | self._host.torch_for("HIP") | self._host.versions(*TRITON)


def _arch(version: int) -> str:
    """90402 -> gfx942: decimal pairs in the driver, hexadecimal digits in the name."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
