"""What a backend package registers: a cheap probe, and a way to open a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inarch.hal.device import Device


@dataclass(frozen=True)
class Probe:
    """What a backend found out about this machine, without importing the vendor's libraries.

    score: 0 = cannot run here; the reference on the CPU is 1, an optimised CPU 10 or more, an
    accelerator 100 or more. Automatic choice takes the highest.
    hardware_seen: the hardware is here although it cannot be used; choosing a slower backend
    silently would then hide a broken installation, so the core refuses to.
    """

    score: int
    devices: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    hardware_seen: bool = False
    libraries: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.score <= 0 and not self.reasons:
            raise ValueError("a probe that finds nothing to run on must say why")


class Backend(ABC):
    """Makes one kind of hardware usable. Its module must import in milliseconds.

    `name` is what users type after --backend. It is not a torch device string.
    """

    name: str

    @abstractmethod
    def probe(self) -> Probe:
        """Look (device nodes, package metadata); cheap, never raises, imports no vendor library."""

    @abstractmethod
    def open(self, index: int) -> Device:
        """Import what is needed and open device number `index`.

        Raises BackendError with the reason when that is not possible.
        """

    def simulation(self) -> Device | None:
        """A device that computes on any CPU as the hardware would, as far as that can be had.

        Kernels in an interpreter, a compiler's CPU target, a vendor's operators by their schemas:
        what the conformance kit tests where the hardware is not. None: there is no such thing.
        """
        return None

    def environment(self) -> Mapping[str, str]:
        """Variables that must be set before the engine process starts (thread binding, ...)."""
        return {}
