"""Find NVIDIA GPUs by what the driver shows in /dev and /proc, without loading any of its libraries."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import TYPE_CHECKING

from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe

if TYPE_CHECKING:
    from inarch.hal.device import Device

SCORE = 100
TRITON = ("triton", "pytorch-triton")  # its names beside releases and other builds of torch
PCI_VENDOR, PCI_DISPLAY = "0x10de", "0x03"


class NvidiaBackend(Backend):
    """Looks below `root`, in the packages of `site` (sys.path) and in `environment`."""

    name = "nvidia"

    def __init__(
        self,
        root: Path = Path("/"),
        site: Sequence[str] | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._root, self._site, self._environment = root, site, environment

    def probe(self) -> Probe:
        hidden = self._environment.get("CUDA_VISIBLE_DEVICES")
        if hidden in ("", "-1"):
            return Probe(0, reasons=(f"CUDA_VISIBLE_DEVICES={hidden} hides every GPU",))
        devices, libraries = self._devices(), self._libraries()
        troubles = list(self._troubles(devices, libraries))
        if not devices and not troubles:
            return Probe(0, reasons=("no NVIDIA GPU: no /dev/nvidia0, and none on the PCI bus",))
        score = 0 if troubles else SCORE
        return Probe(score, devices, tuple(troubles), hardware_seen=True, libraries=libraries)

    def open(self, index: int) -> Device:
        probe = self.probe()
        if not probe.score:
            raise BackendError("; ".join(probe.reasons))
        from inarch_nvidia.device import NvidiaDevice  # imports torch and triton

        return NvidiaDevice(index)

    def _devices(self) -> tuple[str, ...]:
        """Model names of the GPUs that this process was given."""
        numbers = (path.name.removeprefix("nvidia") for path in self._glob("dev/nvidia[0-9]*"))
        minors = sorted(int(number) for number in numbers if number.isdigit())
        models = dict(self._models())
        wsl = (self._root / "dev/dxg", self._root / "usr/lib/wsl/lib/libcuda.so.1")
        if not minors and all(path.exists() for path in wsl):
            return ("NVIDIA GPU under WSL",)
        return tuple(models.get(minor, "NVIDIA GPU") for minor in minors)

    def _models(self) -> Iterator[tuple[int, str]]:
        """(number of the device node, model name) of every GPU that the driver runs."""
        for folder in self._glob("proc/driver/nvidia/gpus/*"):
            text = self._read(f"proc/driver/nvidia/gpus/{folder.name}/information")
            fields = dict(re.findall(r"^([^:\n]+):[ \t]*(.*?)[ \t]*$", text, re.MULTILINE))
            if fields.get("Device Minor", "").isdigit():
                yield int(fields["Device Minor"]), fields.get("Model", "NVIDIA GPU")

    def _troubles(self, devices: Sequence[str], libraries: Mapping[str, str]) -> Iterator[str]:
        models = [model for _, model in self._models()]
        if not devices and models:
            yield (
                f"the driver runs {', '.join(models)}, but no /dev/nvidia0 is here: give the GPU to "
                "this container (--gpus all)"
            )
        elif not devices and self._on_pci_bus():
            yield "an NVIDIA GPU is on the PCI bus, but its driver is not loaded: install the driver"
        elif devices and "torch" not in libraries:
            yield "torch is not installed"
        elif devices and libraries.get("CUDA of torch") == "none":
            yield (
                f"the driver is present, but torch {libraries['torch']} has no CUDA: install a CUDA "
                "build of torch (see pytorch.org)"
            )
        elif devices and "triton" not in libraries:
            yield (
                "triton, in which the kernels are written, is not installed: builds of torch for "
                "Linux bring it (pip install triton)"
            )

    def _on_pci_bus(self) -> bool:
        places = [f"sys/bus/pci/devices/{p.name}" for p in self._glob("sys/bus/pci/devices/*")]
        return any(
            self._read(f"{place}/vendor").strip() == PCI_VENDOR
            and self._read(f"{place}/class").startswith(PCI_DISPLAY)
            for place in places
        )

    def _libraries(self) -> dict[str, str]:
        found: dict[str, str] = {}
        driver = re.search(r"Module.*?\s(\d+\.[\d.]+)", self._read("proc/driver/nvidia/version"))
        if driver:
            found["driver"] = driver[1]
        site = sys.path if self._site is None else self._site
        for torch in Distribution.discover(name="torch", path=list(site)):
            found["torch"] = torch.version
            if build := torch.read_text("../torch/version.py"):  # what `torch.version` would say
                cuda = re.search(r"^cuda\b.*=\s*'([\d.]+)'", build, re.MULTILINE)
                found["CUDA of torch"] = cuda[1] if cuda else "none"
            break
        for name in TRITON:
            for triton in Distribution.discover(name=name, path=list(site)):
                found.setdefault("triton", triton.version)
        return found

    def _glob(self, pattern: str) -> list[Path]:
        return sorted(self._root.glob(pattern))

    def _read(self, place: str) -> str:
        try:
            return (self._root / place).read_text(errors="replace")
        except OSError:
            return ""
