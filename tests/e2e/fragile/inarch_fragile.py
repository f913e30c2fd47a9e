"""A backend that a certain token kills: the whole process, at once, as a fault of a device would."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from inarch.hal.backend import Backend, Probe
from inarch.hookspecs import hookimpl

INARCH_API = (1, 0)


class FragileBackend(Backend):
    name = "fragile"

    def probe(self) -> Probe:
        return Probe(1, devices=("fragile",))

    def open(self, index: int) -> Any:
        from inarch.hal.reference.device import ReferenceDevice
        from inarch.hal.reference.executor import EagerExecutor

        class Executor(EagerExecutor):
            def run(self, step: Any, shape: Any, inputs: Any, kv: Any) -> Any:
                if (inputs.token_ids == int(os.environ["FRAGILE_TOKEN"])).any():
                    os.abort()
                return super().run(step, shape, inputs, kv)

        class Device(ReferenceDevice):
            def executor(self) -> Executor:
                return Executor(self)

        return Device()


@hookimpl
def inarch_backends() -> Sequence[Backend]:
    return [FragileBackend()]
