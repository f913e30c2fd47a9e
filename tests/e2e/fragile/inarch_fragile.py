"""A backend that a bias of a certain token kills: the whole process, as a device's fault would.

A bias of the token after it makes a kernel raise.
"""

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
        from inarch.hal.op import Kernel
        from inarch.hal.ops.sampling import add_bias
        from inarch.hal.reference.device import ReferenceDevice

        def fragile(logits: Any, rows: Any, tokens: Any, values: Any) -> Any:
            token = int(os.environ["FRAGILE_TOKEN"])
            if (tokens == token).any():
                os.abort()
            if (tokens == token + 1).any():
                raise RuntimeError("the chip is on fire")
            return add_bias.reference(logits, rows, tokens, values)

        class Device(ReferenceDevice):
            def kernels(self) -> Sequence[Kernel]:
                return [Kernel("add_bias", "fragile", fragile)]

        return Device()


@hookimpl
def inarch_backends() -> Sequence[Backend]:
    return [FragileBackend()]
