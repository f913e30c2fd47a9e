"""Find NVIDIA GPUs by what the driver shows in /dev and /proc, without loading any of its libraries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe
from inarch.hal.probing import Host

if TYPE_CHECKING:
    from inarch.hal.device import Device

SCORE = 100
TRITON = ("triton", "pytorch-triton")  # its names beside releases and other builds of torch
PCI_VENDOR, PCI_DISPLAY = "0x10de", "0x03"


class NvidiaBackend(Backend):
    name = "nvidia"

    def __init__(self, host: Host | None = None) -> None:
        self._host = Host() if host is None else host

    def probe(self) -> Probe:
        hidden = self._host.environment.get("CUDA_VISIBLE_DEVICES")
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
        numbers = (path.name.removeprefix("nvidia") for path in self._host.glob("dev/nvidia[0-9]*"))
        minors = sorted(int(number) for number in numbers if number.isdigit())
        models = dict(self._models())
        wsl = [self._host.root / place for place in ("dev/dxg", "usr/lib/wsl/lib/libcuda.so.1")]
        if not minors and all(path.exists() for path in wsl):
            return ("NVIDIA GPU under WSL",)
        return tuple(models.get(minor, "NVIDIA GPU") for minor in minors)

    def _models(self) -> Iterator[tuple[int, str]]:
        """(number of the device node, model name) of every GPU that the driver runs."""
        for folder in self._host.glob("proc/driver/nvidia/gpus/*"):
            text = self._host.read(folder / "information")
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
        return any(each.kind.startswith(PCI_DISPLAY) for each in self._host.pci(PCI_VENDOR))

    def _libraries(self) -> dict[str, str]:
        text = self._host.read("proc/driver/nvidia/version")
        driver = re.search(r"Module.*?\s(\d+\.[\d.]+)", text)
        found = {"driver": driver[1]} if driver else {}
        return found | self._host.torch_for("CUDA") | self._host.versions(*TRITON)
