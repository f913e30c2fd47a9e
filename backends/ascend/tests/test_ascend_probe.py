"""What the probe says about machines, each built as a folder of device nodes and driver files."""

from __future__ import annotations

from pathlib import Path

import pytest

from inarch_ascend.backend import CONTROL_NODES, NO_KERNELS, AscendBackend

CANN = "/usr/local/Ascend/cann"


class Machine:
    def __init__(self, root: Path) -> None:
        self.root, self.site = root, root / "site"

    def write(self, place: str, text: str = "") -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def nodes(self, count: int, control: tuple[str, ...] = CONTROL_NODES) -> None:
        for name in (*(f"davinci{number}" for number in range(count)), *control):
            self.write(f"dev/{name}")

    def pci(self, kind: str) -> None:
        for name, text in (("vendor", "0x19e5"), ("device", "0xd802"), ("class", kind)):
            self.write(f"sys/bus/pci/devices/0000:c1:00.0/{name}", text + "\n")

    def driver(self) -> None:
        self.write("usr/local/Ascend/driver/version.info", "Version=25.2.0\nascendhal_version=7\n")

    def cann(self) -> None:
        place = f"{CANN[1:]}/aarch64-linux/ascend_toolkit_install.info"
        self.write(place, "package_name=Ascend-cann-toolkit\nversion=8.5.0\n")

    def package(self, name: str, version: str) -> None:
        info = f"site/{name.replace('-', '_')}-{version}.dist-info/METADATA"
        self.write(info, f"Name: {name}\nVersion: {version}\n")

    def probe(self, **environment: str):
        return AscendBackend(self.root, [str(self.site)], environment).probe()


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_a_sound_installation_lacks_only_kernels(machine):
    machine.nodes(8)
    machine.driver()
    machine.cann()
    machine.package("torch", "2.13.0")
    machine.package("torch-npu", "2.14.0")
    probe = machine.probe(ASCEND_HOME_PATH=CANN)
    assert probe.devices == tuple(f"Ascend NPU {number}" for number in range(8))
    assert (probe.score, probe.hardware_seen, probe.reasons) == (0, True, (NO_KERNELS,))
    assert probe.libraries == {
        "driver": "25.2.0",
        "torch": "2.13.0",
        "torch-npu": "2.14.0",
        "CANN": "8.5.0",
    }


def test_everything_that_is_missing_is_named(machine):
    machine.nodes(1, control=("davinci_manager", "hisi_hdc"))
    machine.cann()  # installed, but its environment was not sourced
    text = "\n".join(machine.probe().reasons)
    assert "/dev/devmm_svm is not there" in text
    assert "source its set_env.sh" in text
    assert "pip install torch-npu" in text


def test_torch_npu_without_cann_is_a_danger_even_without_an_npu(machine):
    machine.package("torch-npu", "2.14.0")
    probe = machine.probe()
    assert not probe.hardware_seen
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in probe.reasons[1]
    environment = AscendBackend(machine.root).environment()
    assert environment == {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}


def test_an_npu_without_device_nodes_is_seen_on_the_pci_bus(machine):
    machine.pci("0x120000")
    probe = machine.probe()
    assert (probe.devices, probe.hardware_seen) == ((), True)
    assert "0xd802" in probe.reasons[0]


def test_a_network_card_of_the_same_vendor_is_no_npu(machine):
    machine.pci("0x020000")
    assert not machine.probe().hardware_seen


def test_a_machine_without_an_npu_says_what_was_looked_for(machine):
    probe = machine.probe()
    assert not probe.hardware_seen
    assert "no /dev/davinci0" in probe.reasons[0]


def test_npus_that_the_user_hides_do_not_count(machine):
    machine.nodes(1)
    probe = machine.probe(ASCEND_RT_VISIBLE_DEVICES="")
    assert not probe.hardware_seen
    assert "ASCEND_RT_VISIBLE_DEVICES" in probe.reasons[0]
