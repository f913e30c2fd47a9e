"""Find the hardware without loading its library, and open it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe
from inarch.hal.device import Device


class AcmeBackend(Backend):
    name = "acme"  # what users type after --backend

    def probe(self) -> Probe:
        """Called on every start: look at files, in milliseconds, and never raise.

        The highest score is chosen where no --backend is given: the reference has 1, an optimised CPU
        10 or more, an accelerator 100 or more. Say hardware_seen=True where the hardware is there but
        cannot be used: then nobody is served by a slow CPU without knowing.
        """
        try:
            version = importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            return Probe(score=0, reasons=("torch is not installed: pip install torch",))
        return Probe(score=2, devices=("Acme on torch's CPU",), libraries={"torch": version})

    def open(self, index: int) -> Device:
        if index != 0:
            raise BackendError(f"acme has one device, number 0: there is no number {index}")
        from inarch_acme.device import AcmeDevice  # the first import of the hardware's library

        return AcmeDevice()

    def environment(self) -> Mapping[str, str]:
        """Variables of the engine's process. These threads sleep while they wait, rather than spin."""
        return {"OMP_WAIT_POLICY": "PASSIVE"}
