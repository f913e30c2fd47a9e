"""All cases of a backend, level by level; a device is opened when the first case needs it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inarch.conformance import package as level0
from inarch.conformance.case import Case, Failed, Refused
from inarch.conformance.package import Package
from inarch.errors import BackendError
from inarch.plugins import Plugins, load_plugins

if TYPE_CHECKING:
    from inarch.conformance.subject import Subject


@dataclass
class Suite:
    """The cases of a backend. index: of the device. depth: how many of each generated case."""

    package: Package
    plugins: Plugins = field(default_factory=load_plugins)
    index: int = 0
    depth: int = 1
    _cases: dict[int, tuple[Case, ...]] = field(default_factory=dict)

    def cases(self, level: int) -> tuple[Case, ...]:
        """Of one level. Whatever foreign code raises meanwhile comes as a case that fails so."""
        if level not in self._cases:
            self._cases[level] = tuple(self._gathered(level))
        return self._cases[level]

    def _gathered(self, level: int) -> Iterator[Case]:
        if level == 0:
            yield from level0.cases(self.package)
            return
        subject = self._subject(level)
        if isinstance(subject, Exception):
            yield _raising(level, "open", subject)
            return
        try:
            yield from list(self._of(level, subject))
        except Exception as error:
            yield _raising(level, "declarations", error)

    def _of(self, level: int, subject: Subject) -> Iterator[Case]:
        from inarch.conformance import facets, schema

        match level:
            case 1:
                yield from schema.cases(subject)
            case 2 | 3:
                yield from facets.cases(subject)
            case 4:
                from inarch.conformance import serving  # brings the engine along

                yield from serving.cases(subject, self.plugins)
            case 5:
                from inarch.conformance import roofline

                yield from roofline.cases(subject)

    def _subject(self, level: int) -> Subject | Exception:
        """What a level needs. Models and rooflines take the device, or else its simulation."""
        match level:
            case 2:
                return self.simulated
            case 3:
                return self.real
            case _:
                if not isinstance(self.real, Refused):
                    return self.real
                if isinstance(self.simulated, Refused):
                    return Refused(f"{self.real}, and {self.simulated}")
                return self.simulated

    @functools.cached_property
    def real(self) -> Subject | Exception:
        backend = self.package.backend
        try:
            probe = backend.probe()
            if probe.score <= 0:
                return Refused(f"no device here: {'; '.join(probe.reasons)}")
            return self._opened(lambda: backend.open(self.index), simulated=False)
        except BackendError as refusal:
            return Failed(f"its probe finds a device, but opening number {self.index}: {refusal}")
        except Exception as error:
            return error

    @functools.cached_property
    def simulated(self) -> Subject | Exception:
        try:
            device = self.package.backend.simulation()
            if device is None:
                return Refused("the backend simulates no device")
            return self._opened(lambda: device, simulated=True)
        except Exception as error:
            return error

    def _opened(self, open_device: Callable[[], object], *, simulated: bool) -> Subject:
        from inarch.conformance.subject import Subject  # brings torch along
        from inarch.hal.device import Device

        device = open_device()
        if not isinstance(device, Device):
            raise Failed(f"{device!r} came out, which is no Device")
        backend = self.package.backend
        kernels = [*device.kernels(), *self.plugins.kernels(backend.name)]
        return Subject(backend, device, kernels, simulated, self.depth, self.package.place)


def _raising(level: int, name: str, error: Exception) -> Case:
    def check() -> str:
        raise error

    return Case(level, "device", name, check)


def find(plugins: Plugins, name: str) -> Package:
    """The installed backend of that name, or the reference. Raises BackendError."""
    from inarch.hal.reference.backend import ReferenceBackend

    given = [(backend, record) for backend, record in plugins.backends() if backend.name == name]
    if name == ReferenceBackend.name:
        return Package(ReferenceBackend())
    if len(given) == 1:
        return Package(*given[0])
    if given:
        owners = " and ".join(record.key for _, record in given)
        raise BackendError(f"{owners} both give a backend {name!r}: disable one of them")
    broken = [r for r in plugins.records if r.name == name and r.broken]
    if broken:
        raise BackendError(f"the plugin of backend {name!r} cannot be used, {broken[0].why}")
    known = sorted({b.name for b, _ in plugins.backends()} | {ReferenceBackend.name})
    raise BackendError(f"there is no backend {name!r}; there are: {', '.join(known)}")
