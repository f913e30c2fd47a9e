"""The backend that is always there: plain PyTorch on the CPU."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe
from inarch.hal.device import Device
from inarch.hal.reference.host import cpu_name


class ReferenceBackend(Backend):
    """Serves on any CPU, as the last choice of the automatic selection."""

    name = "reference"

    def probe(self) -> Probe:
        try:
            version = importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            return Probe(0, reasons=("torch is not installed: pip install torch",))
        return Probe(1, devices=(cpu_name(),), libraries={"torch": version})

    def environment(self) -> Mapping[str, str]:
        # Threads that spin while they wait cost a time slice each as soon as anything else runs.
        return {"OMP_WAIT_POLICY": "PASSIVE"}

    def open(self, index: int) -> Device:
        if index != 0:
            raise BackendError(
                f"the reference backend has one device, number 0: there is no number {index}"
            )
        from inarch.hal.reference.device import ReferenceDevice

        return ReferenceDevice()
