"""Find Ascend NPUs by what the driver and CANN leave on the disk, without loading torch-npu."""

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
NO_AUTOLOAD = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
PCI_VENDOR, PCI_ACCELERATOR = "0x19e5", "0x12"  # Huawei's; its network cards have it too
CONTROL_NODES = ("davinci_manager", "devmm_svm", "hisi_hdc")
CANN_VARIABLES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")


class AscendBackend(Backend):
    name = "ascend"

    def __init__(self, host: Host | None = None) -> None:
        self._host = Host() if host is None else host

    def probe(self) -> Probe:
        if self._host.environment.get("ASCEND_RT_VISIBLE_DEVICES") == "":
            return Probe(0, reasons=("ASCEND_RT_VISIBLE_DEVICES is empty and hides every NPU",))
        nodes = [path.name for path in self._host.glob("dev/davinci[0-9]*")]
        on_bus = self._host.pci(PCI_VENDOR)
        chips = [each.device for each in on_bus if each.kind.startswith(PCI_ACCELERATOR)]
        libraries = self._libraries()
        troubles = list(self._troubles(nodes, chips, libraries))
        if not nodes and not chips:
            reason = "no Ascend NPU: no /dev/davinci0, and none on the PCI bus"
            return Probe(0, reasons=(reason, *troubles), libraries=libraries)
        devices = tuple(f"Ascend NPU {node.removeprefix('davinci')}" for node in sorted(nodes))
        score = 0 if troubles else SCORE
        return Probe(score, devices, tuple(troubles), hardware_seen=True, libraries=libraries)

    def open(self, index: int) -> Device:
        probe = self.probe()
        if not probe.score:
            raise BackendError("; ".join(probe.reasons))
        try:
            import torch_npu
        except (ImportError, OSError, RuntimeError) as error:  # a library of CANN, or another torch
            raise BackendError(
                f"torch-npu {probe.libraries['torch-npu']} cannot be imported with torch "
                f"{probe.libraries.get('torch')} and CANN {probe.libraries['CANN']}, which must "
                f"match: {error}"
            ) from error
        from inarch_ascend.device import AscendDevice

        return AscendDevice(index, torch_npu)

    def simulation(self) -> Device | None:
        from inarch_ascend import simulation

        return simulation.device()

    def environment(self) -> Mapping[str, str]:
        # An installed torch-npu would load itself with torch, and fail there without CANN.
        return NO_AUTOLOAD

    def _troubles(
        self, nodes: Sequence[str], chips: Sequence[str], libraries: Mapping[str, str]
    ) -> Iterator[str]:
        if "torch-npu" in libraries and "CANN" not in libraries:
            yield (
                f"torch-npu {libraries['torch-npu']} is installed without CANN, so that `import torch` "
                "fails unless TORCH_DEVICE_BACKEND_AUTOLOAD=0 is set, as Inarch does"
            )
        if not nodes and chips:
            yield (
                f"an NPU ({', '.join(chips)}) is on the PCI bus, but no /dev/davinci0 is here: install "
                "the driver, or give the device to this container (--device /dev/davinci0)"
            )
        if not nodes:
            return
        for node in CONTROL_NODES:
            if not (self._host.root / "dev" / node).exists():
                yield f"/dev/{node} is not there: give it to this container too"
        if "CANN" not in libraries:
            yield "CANN is not in the environment: install it and source its set_env.sh"
        if "torch-npu" not in libraries:
            yield "torch-npu is not installed: pip install 'inarch-ascend[torch-npu]'"
        elif "torch" in libraries and _release(libraries["torch"]) != _release(
            libraries["torch-npu"]
        ):
            yield (
                f"torch-npu {libraries['torch-npu']} is not made for torch {libraries['torch']}: "
                f"install the torch-npu of the same version"
            )

    def _libraries(self) -> dict[str, str]:
        found: dict[str, str] = {}
        driver = self._host.read("usr/local/Ascend/driver/version.info")
        if version := re.search(r"^Version=(.+)$", driver, re.MULTILINE):
            found["driver"] = version[1]
        for name in ("torch", "torch-npu"):
            if distribution := self._host.installed(name):
                found[name] = distribution.version
        if cann := self._cann():
            found["CANN"] = cann
        return found

    def _cann(self) -> str | None:
        """CANN's version, "unknown" where it does not tell, None where it is not there."""
        for variable in CANN_VARIABLES:
            home = self._host.root / self._host.environment.get(variable, "").lstrip("/")
            if self._host.environment.get(variable) and home.is_dir():
                texts = map(self._host.read, home.glob("*-linux/ascend_toolkit_install.info"))
                found = [re.search(r"^version=(.+)$", text, re.MULTILINE) for text in texts]
                return next((version[1] for version in found if version), "unknown")
        return None


def _release(version: str) -> list[str]:
    """2.13.0.post1 and 2.13.1+cpu are of the same release."""
    return version.split(".")[:2]
