"""Open a backend's device and ask it for its kernels; what goes wrong there names the backend.

A backend is somebody else's code. When it raises, the user must hear whose fault that is, and the
backend's makers need the traceback, which goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from inarch.errors import BackendError, InarchError
from inarch.hal.backend import Backend
from inarch.hal.device import Device
from inarch.hal.op import Kernel
from inarch.plugins import Fault, Plugins, guarded

log = logging.getLogger(__name__)
T = TypeVar("T")


def open_device(backend: Backend, index: int) -> Device:
    """Raises BackendError if that is not possible, with the reason."""
    device = _asked(f"backend {backend.name} cannot open device {index}", backend.open, index)
    if not isinstance(device, Device):
        raise BackendError(
            f"backend {backend.name}: open({index}) gave {device!r}, which is no Device"
        )
    return device


def kernels_for(backend: Backend, device: Device, plugins: Plugins) -> list[Kernel]:
    """The device's kernels, and those that other packages add. Raises BackendError."""
    from inarch.hal.ops import FACETS, OPS  # brings torch along

    given = _asked(f"backend {backend.name} cannot say which kernels it has", device.kernels)
    if not isinstance(given, list | tuple):
        raise BackendError(f"backend {backend.name}: kernels() gave {given!r} instead of a list")
    kernels = [*given, *plugins.kernels(backend.name)]
    for kernel in kernels:
        if not isinstance(kernel, Kernel):
            raise BackendError(
                f"backend {backend.name}: kernels() gave {kernel!r}, which is no Kernel"
            )
        if kernel.op not in OPS and kernel.op not in FACETS:
            raise BackendError(
                f"kernel {kernel.name!r} of backend {backend.name} is for {kernel.op!r}, which is no "
                f"op of this Inarch: there are {', '.join(sorted([*OPS, *FACETS]))}"
            )
    return kernels


def environment_of(backend: Backend) -> Mapping[str, str]:
    """Variables that must be set before the engine process starts. Raises BackendError."""
    what = f"backend {backend.name} cannot say which environment variables it needs"
    variables = _asked(what, backend.environment)
    for name, value in variables.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise BackendError(f"backend {backend.name} wants {name}={value}: both must be texts")
    return variables


def _asked(what: str, call: Callable[..., T], *arguments: object) -> T:
    """The answer of foreign code. An InarchError of its own is one too, meant for the user."""

    def ask() -> T | InarchError:
        try:
            return call(*arguments)
        except InarchError as error:
            return error

    answer = guarded(ask)
    if isinstance(answer, InarchError):
        raise answer
    if isinstance(answer, Fault):
        log.error("%s\n%s", what, answer.traceback)
        raise BackendError(f"{what}: {answer.reason}")
    return answer
