"""Always there, and scored like any accelerator: a core that finds it should want it."""

from __future__ import annotations

from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe
from inarch.hal.device import Device


class FakeBackend(Backend):
    name = "fake"

    def probe(self) -> Probe:
        return Probe(score=100, devices=("Fake 1",), libraries={"fakelib": "1.0"})

    def open(self, index: int) -> Device:
        if index != 0:
            raise BackendError(f"there is one fake accelerator, number 0, not {index}")
        from inarch_fake.device import FakeDevice

        return FakeDevice()
