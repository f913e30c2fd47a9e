"""What the probe says about machines, each built as a folder of device nodes and driver files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from inarch.errors import BackendError
from inarch.hal.probing import Host
from inarch_ascend.backend import CONTROL_NODES, SCORE, AscendBackend

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
        return AscendBackend(Host(self.root, [str(self.site)], environment)).probe()


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def sound(machine: Machine, torch_npu: str = "2.13.0.post1") -> None:
    machine.nodes(8)
    machine.driver()
    machine.cann()
    machine.package("torch", "2.13.0+cpu")
    machine.package("torch-npu", torch_npu)


def test_a_sound_installation_can_serve(machine):
    sound(machine)
    probe = machine.probe(ASCEND_HOME_PATH=CANN)
    assert probe.devices == tuple(f"Ascend NPU {number}" for number in range(8))
    assert (probe.score, probe.hardware_seen, probe.reasons) == (SCORE, True, ())
    assert probe.libraries == {
        "driver": "25.2.0",
        "torch": "2.13.0+cpu",
        "torch-npu": "2.13.0.post1",
        "CANN": "8.5.0",
    }


def test_torch_npu_must_be_the_one_for_the_installed_torch(machine):
    sound(machine, torch_npu="2.14.0")
    probe = machine.probe(ASCEND_HOME_PATH=CANN)
    assert (probe.score, probe.hardware_seen) == (0, True)
    assert "torch-npu 2.14.0 is not made for torch 2.13.0" in probe.reasons[0]


def test_opening_what_cannot_serve_says_why(machine):
    machine.nodes(1)
    with pytest.raises(BackendError, match="source its set_env"):
        AscendBackend(Host(machine.root, [str(machine.site)], {})).open(0)


def test_opening_says_what_torch_npu_could_not_load(machine, monkeypatch):
    sound(machine)
    broken = machine.site / "torch_npu.py"
    broken.write_text("raise ImportError('libhccl.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(machine.site))
    monkeypatch.delitem(sys.modules, "torch_npu", raising=False)
    backend = AscendBackend(Host(machine.root, [str(machine.site)], {"ASCEND_HOME_PATH": CANN}))
    with pytest.raises(BackendError, match=r"which must match: libhccl\.so"):
        backend.open(0)


def test_everything_that_is_missing_is_named(machine):
    machine.nodes(1, control=("davinci_manager", "hisi_hdc"))
    machine.cann()  # installed, but its environment was not sourced
    text = "\n".join(machine.probe().reasons)
    assert "/dev/devmm_svm is not there" in text
    assert "source its set_env.sh" in text
    assert "pip install 'inarch-ascend[torch-npu]'" in text


def test_torch_npu_without_cann_is_a_danger_even_without_an_npu(machine):
    machine.package("torch-npu", "2.14.0")
    probe = machine.probe()
    assert not probe.hardware_seen
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in probe.reasons[1]
    environment = AscendBackend(Host(machine.root)).environment()
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
