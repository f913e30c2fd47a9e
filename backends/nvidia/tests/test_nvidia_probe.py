"""What the probe says about machines, each built as a folder of device nodes and driver files."""

from __future__ import annotations

from pathlib import Path

import pytest

from inarch.hal.probing import Host
from inarch_nvidia.backend import SCORE, NvidiaBackend

INFORMATION = """Model: \t\t NVIDIA H100 80GB HBM3
IRQ:   \t\t 41
Bus Location: \t 0000:00:06.0
Device Minor: \t {minor}
"""
DRIVER = """NVRM version: NVIDIA UNIX {kind}  580.159.04  Release Build
GCC version:  gcc version 15.3.0 (GCC)
"""
OPEN, CLOSED = "Open Kernel Module for x86_64", "x86_64 Kernel Module"


class Machine:
    def __init__(self, root: Path) -> None:
        self.root, self.site = root, root / "site"

    def write(self, place: str, text: str = "") -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def driver(self, gpus: int, kind: str = OPEN) -> None:
        self.write("proc/driver/nvidia/version", DRIVER.format(kind=kind))
        for minor in range(gpus):
            place = f"proc/driver/nvidia/gpus/0000:0{minor}:06.0/information"
            self.write(place, INFORMATION.format(minor=minor))

    def nodes(self, *minors: int) -> None:
        for name in (*(f"nvidia{minor}" for minor in minors), "nvidiactl", "nvidia-uvm"):
            self.write(f"dev/{name}")

    def pci(self, address: str, vendor: str, kind: str) -> None:
        self.write(f"sys/bus/pci/devices/{address}/vendor", vendor + "\n")
        self.write(f"sys/bus/pci/devices/{address}/class", kind + "\n")

    def torch(self, version: str, cuda: str) -> None:
        self.write(f"site/torch-{version}.dist-info/METADATA", f"Name: torch\nVersion: {version}\n")
        build = (
            f"__version__ = '{version}'\ncuda: Optional[str] = {cuda}\nhip: Optional[str] = None\n"
        )
        self.write("site/torch/version.py", build)

    def triton(self, version: str) -> None:
        self.write(
            f"site/triton-{version}.dist-info/METADATA", f"Name: triton\nVersion: {version}\n"
        )

    def probe(self, **environment: str):
        return NvidiaBackend(Host(self.root, [str(self.site)], environment)).probe()


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("kind", [OPEN, CLOSED])
def test_a_sound_installation_is_preferred_to_any_cpu(machine, kind):
    machine.driver(2, kind)
    machine.nodes(0, 1)
    machine.torch("2.11.0+cu130", "'13.0'")
    machine.triton("3.6.0")
    probe = machine.probe()
    assert probe.devices == ("NVIDIA H100 80GB HBM3",) * 2
    assert (probe.score, probe.hardware_seen, probe.reasons) == (SCORE, True, ())
    assert probe.libraries == {
        "driver": "580.159.04",
        "torch": "2.11.0+cu130",
        "CUDA of torch": "13.0",
        "triton": "3.6.0",
    }


def test_a_missing_triton_is_named(machine):
    machine.driver(1)
    machine.nodes(0)
    machine.torch("2.11.0+cu130", "'13.0'")
    probe = machine.probe()
    assert (probe.score, probe.hardware_seen) == (0, True)
    assert "triton" in probe.reasons[0]


def test_a_torch_without_cuda_is_named_with_its_version(machine):
    machine.driver(1)
    machine.nodes(0)
    machine.torch("2.13.0+cpu", "None")
    assert "torch 2.13.0+cpu has no CUDA: install" in machine.probe().reasons[0]


def test_only_the_gpus_given_to_the_container_count(machine):
    machine.driver(8)
    machine.nodes(3)
    assert len(machine.probe().devices) == 1


def test_a_container_that_was_given_no_gpu_is_told_how_to_get_it(machine):
    machine.driver(1)
    probe = machine.probe()
    assert (probe.devices, probe.hardware_seen) == ((), True)
    assert "NVIDIA H100 80GB HBM3" in probe.reasons[0]
    assert "--gpus all" in probe.reasons[0]


def test_device_nodes_alone_are_enough(machine):
    machine.nodes(0, 1, 10)
    assert machine.probe().devices == ("NVIDIA GPU",) * 3


def test_a_gpu_without_a_driver_is_seen_on_the_pci_bus(machine):
    machine.pci("0000:01:00.0", "0x8086", "0x030000")
    machine.pci("0000:01:00.1", "0x10de", "0x040300")  # the sound device of a graphics card
    assert not machine.probe().hardware_seen
    machine.pci("0000:01:00.2", "0x10de", "0x030200")
    probe = machine.probe()
    assert probe.hardware_seen
    assert "install the driver" in probe.reasons[0]


def test_wsl_shows_a_gpu_only_with_its_library(machine):
    machine.write("dev/dxg")
    assert machine.probe().devices == ()
    machine.write("usr/lib/wsl/lib/libcuda.so.1")
    assert machine.probe().devices == ("NVIDIA GPU under WSL",)


def test_a_machine_without_a_gpu_says_what_was_looked_for(machine):
    machine.torch("2.13.0+cpu", "None")
    probe = machine.probe()
    assert not probe.hardware_seen
    assert "no /dev/nvidia0" in probe.reasons[0]


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_that_the_user_hides_do_not_count(machine, hidden):
    machine.driver(1)
    machine.nodes(0)
    probe = machine.probe(CUDA_VISIBLE_DEVICES=hidden)
    assert not probe.hardware_seen
    assert "CUDA_VISIBLE_DEVICES" in probe.reasons[0]
    assert machine.probe(CUDA_VISIBLE_DEVICES="0").hardware_seen
