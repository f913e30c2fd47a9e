"""Find AMD GPUs by what the amdgpu driver shows in /dev and /sys, without loading any ROCm library."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe
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
    """Looks below `root`, in the packages of `site` (sys.path) and in `environment`."""

    name = "amd"

    def __init__(
        self,
        root: Path = Path("/"),
        site: Sequence[str] | None = None,
        environment: Mapping[str, str] = os.environ,
        access: Callable[[Path, int], bool] = os.access,
    ) -> None:
        self._root, self._site, self._environment, self._access = root, site, environment, access

    def probe(self) -> Probe:
        for variable in HIDING:
            if (value := self._environment.get(variable)) in ("", "-1"):
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
        """An MI300 in Triton's interpreter, if Triton is installed; for a process of its own."""
        if find_spec("triton") is None:
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
        folders = [path for path in (self._root / TOPOLOGY).glob("*") if path.name.isdigit()]
        for folder in sorted(folders, key=lambda path: int(path.name)):
            text = self._read(f"{TOPOLOGY}/{folder.name}/properties")
            facts = {key: int(value) for key, value in re.findall(r"^(\w+) (\d+)$", text, re.M)}
            if facts.get("simd_count"):
                render = self._root / f"dev/dri/renderD{facts.get('drm_render_minor', 0)}"
                yield Gpu(_arch(facts.get("gfx_target_version", 0)), render)

    def _troubles(self, gpus: Sequence[Gpu], libraries: Mapping[str, str]) -> Iterator[str]:
        kfd = self._root / "dev/kfd"
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
            if not self._access(node, os.R_OK | os.W_OK):
                place = node.relative_to(self._root)
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
        places = [f"sys/bus/pci/devices/{p.name}" for p in self._root.glob("sys/bus/pci/devices/*")]
        return any(
            self._read(f"{place}/vendor").strip() == PCI_VENDOR
            and self._read(f"{place}/class").startswith(PCI_CLASSES)
            for place in places
        )

    def _libraries(self) -> dict[str, str]:
        versions = {"ROCm": self._read("opt/rocm/.info/version").strip()}
        site = sys.path if self._site is None else self._site
        for torch in Distribution.discover(name="torch", path=list(site)):
            versions["torch"] = torch.version
            if build := torch.read_text("../torch/version.py"):  # what `torch.version` would say
                hip = re.search(r"^hip\b.*=\s*'([\w.-]+)'", build, re.MULTILINE)
                versions["HIP of torch"] = hip[1] if hip else "none"
            break
        for name in TRITON:
            for triton in Distribution.discover(name=name, path=list(site)):
                versions.setdefault("triton", triton.version)
        return {name: version for name, version in versions.items() if version}

    def _read(self, place: str) -> str:
        try:
            return (self._root / place).read_text(errors="replace")
        except OSError:
            return ""


def _arch(version: int) -> str:
    """90402 -> gfx942: decimal pairs in the driver, hexadecimal digits in the name."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
