"""Find TPU chips on the PCI bus and their device nodes, without loading libtpu or JAX."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING

from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe
from inarch.hal.probing import Host

if TYPE_CHECKING:
    from inarch.hal.device import Device

PCI_VENDOR = "0x1ae0"  # Google's; its network cards have it too, so the device id decides
PCI_DEVICES = {
    "0x0027": "TPU v2 or v3",
    "0x005e": "TPU v4",
    "0x0062": "TPU v5p",
    "0x0063": "TPU v5e",
    "0x006f": "TPU v6e",
    "0x0076": "TPU v7",
}
LIBRARIES = ("libtpu", "jax", "jaxlib", "torch")
SCORE = 100
PLATFORMS = "JAX_PLATFORMS"  # JAX's own variable: "cpu" keeps it from any accelerator
FLAGS = "XLA_FLAGS"  # read when JAX opens its devices
VIRTUAL_CHIPS = "--xla_force_host_platform_device_count"  # as which JAX shows a CPU
TIMEOUT = "--xla_cpu_collective_call_terminate_timeout_seconds"
TIMEOUT_SINCE = (0, 9)  # jaxlib's version
PATIENCE_S = 3600
MACHINE_TYPE = "TPU_ACCELERATOR_TYPE"  # set on TPU machines, "v5litepod-8"


class TpuBackend(Backend):
    name = "tpu"

    def __init__(self, host: Host | None = None) -> None:
        self._host = Host() if host is None else host

    def probe(self) -> Probe:
        libraries = self._libraries()
        if self._host.environment.get(PLATFORMS) == "cpu":
            return self._on_cpu(libraries)
        nodes = self._nodes()
        chips = [
            PCI_DEVICES[each.device]
            for each in self._host.pci(PCI_VENDOR)
            if each.device in PCI_DEVICES
        ]
        if not chips and not any(node.startswith("accel") for node in nodes):
            return self._nothing()
        devices = tuple(chips or ["TPU"] * len(nodes)) if nodes else ()
        reasons = [
            f"{name} is not installed: pip install 'jax[tpu]'"
            for name in ("libtpu", "jax")
            if name not in libraries
        ]
        if not nodes:
            reasons.insert(
                0,
                f"{len(chips)} x {chips[0]} on the PCI bus, but neither /dev/accel0 nor /dev/vfio/0 is "
                "here: give the devices to this container (--privileged)",
            )
        score = 0 if reasons else SCORE
        return Probe(score, devices, tuple(reasons), hardware_seen=True, libraries=libraries)

    def open(self, index: int) -> Device:
        probe = self.probe()
        if not probe.score:
            raise BackendError("; ".join(probe.reasons))
        if index != 0:
            raise BackendError(
                f"one device holds all chips of this host, number 0: there is no number {index}; "
                "TPU_VISIBLE_CHIPS tells libtpu which chips to use"
            )
        give_virtual_chips_time(os.environ, probe.libraries)
        from inarch_tpu.device import open_device

        return open_device()

    def simulation(self) -> Device | None:
        """XLA's CPU target, if JAX is installed and no TPU is here; for a process of its own."""
        if self.probe().score or "jax" not in self._libraries():
            return None
        import jax

        # Not by JAX_PLATFORMS, which says to the probe that the user wants it so.
        jax.config.update("jax_platforms", "cpu")
        from inarch_tpu.device import open_device

        return open_device()

    def _on_cpu(self, libraries: Mapping[str, str]) -> Probe:
        """Only where the user asked for it: as slow as it is, it should never be chosen silently."""
        if "jax" not in libraries:
            return Probe(
                0, reasons=(f"{PLATFORMS} is cpu, but jax is not installed: pip install jax",)
            )
        return Probe(1, ("JAX on the CPU",), (f"{PLATFORMS} is cpu",), libraries=libraries)

    def _nothing(self) -> Probe:
        if machine := self._host.environment.get(MACHINE_TYPE):
            reason = f"{MACHINE_TYPE} is {machine}, but no chip can be seen from here"
            return Probe(0, reasons=(reason,), hardware_seen=True)
        return Probe(0, reasons=("no TPU: no chip on the PCI bus and no /dev/accel0",))

    def _nodes(self) -> list[str]:
        """Device nodes: accel0 up to v4, vfio/0 since v5. (/dev/vfio may serve other devices too.)"""
        accel = [path.name for path in self._host.glob("dev/accel[0-9]*")]
        vfio = [f"vfio/{path.name}" for path in self._host.glob("dev/vfio/[0-9]*")]
        return sorted(accel or vfio)

    def _libraries(self) -> dict[str, str]:
        found = {name: self._host.installed(name) for name in LIBRARIES}
        return {name: package.version for name, package in found.items() if package is not None}


def give_virtual_chips_time(
    environment: MutableMapping[str, str], libraries: Mapping[str, str]
) -> None:
    """XLA ends the process when one of several virtual chips keeps the others waiting for long.

    Where there are fewer cores than chips, or the machine is busy, that is no sign of a fault.
    """
    flags, version = environment.get(FLAGS, ""), libraries.get("jaxlib", "0.0").split(".")
    known = (
        tuple(map(int, version[:2])) >= TIMEOUT_SINCE
    )  # XLA dies of a flag that it does not know
    if VIRTUAL_CHIPS in flags and TIMEOUT not in flags and known:
        environment[FLAGS] = f"{flags} {TIMEOUT}={PATIENCE_S}"
