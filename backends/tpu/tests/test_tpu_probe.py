"""What the probe says about machines, each built as a folder of device nodes and PCI devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from inarch_tpu.backend import NO_KERNELS, TpuBackend


class Machine:
    def __init__(self, root: Path) -> None:
        self.root, self.site = root, root / "site"

    def write(self, place: str, text: str = "") -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def pci(self, device: str, count: int = 1, vendor: str = "0x1ae0") -> None:
        for number in range(count):
            place = f"sys/bus/pci/devices/0000:{device[2:]}:{number:02}.0"
            self.write(f"{place}/vendor", vendor + "\n")
            self.write(f"{place}/device", device + "\n")

    def package(self, name: str, version: str) -> None:
        info = f"site/{name}-{version}.dist-info/METADATA"
        self.write(info, f"Name: {name}\nVersion: {version}\n")

    def probe(self, **environment: str):
        return TpuBackend(self.root, [str(self.site)], environment).probe()


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("device", "node", "name"),
    [("0x005e", "accel{}", "TPU v4"), ("0x0063", "vfio/{}", "TPU v5e")],
)
def test_a_sound_installation_lacks_only_kernels(machine, device, node, name):
    machine.pci(device, count=4)
    for number in range(4):
        machine.write("dev/" + node.format(number))
    machine.package("libtpu", "0.0.30")
    machine.package("jax", "0.11.2")
    probe = machine.probe()
    assert probe.devices == (name,) * 4
    assert (probe.score, probe.hardware_seen, probe.reasons) == (0, True, (NO_KERNELS,))
    assert probe.libraries == {"libtpu": "0.0.30", "jax": "0.11.2"}


def test_a_missing_libtpu_is_named(machine):
    machine.write("dev/accel0")
    probe = machine.probe()
    assert probe.devices == ("TPU",)
    assert "pip install libtpu" in probe.reasons[0]


def test_a_network_card_of_the_same_vendor_is_no_tpu(machine):
    machine.pci("0x0042")
    machine.write("dev/vfio/0")
    probe = machine.probe()
    assert not probe.hardware_seen
    assert "no TPU" in probe.reasons[0]


def test_the_folder_of_other_accelerators_is_no_tpu(machine):
    machine.write("dev/accel/accel0")
    assert not machine.probe().hardware_seen


def test_a_container_that_was_given_no_chip_is_told_how_to_get_it(machine):
    machine.pci("0x006f", count=8)
    probe = machine.probe()
    assert (probe.devices, probe.hardware_seen) == ((), True)
    assert "8 x TPU v6e" in probe.reasons[0]
    assert "--privileged" in probe.reasons[0]


def test_a_tpu_machine_whose_chips_are_out_of_sight_is_seen(machine):
    probe = machine.probe(TPU_ACCELERATOR_TYPE="v5litepod-8")
    assert probe.hardware_seen
    assert "v5litepod-8" in probe.reasons[0]
