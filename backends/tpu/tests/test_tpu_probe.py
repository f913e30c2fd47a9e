"""What the probe says about machines, each built as a folder of device nodes and PCI devices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inarch.errors import BackendError
from inarch.hal.probing import Host
from inarch_tpu.backend import SCORE, TIMEOUT, TpuBackend, give_virtual_chips_time


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

    def backend(self, **environment: str) -> TpuBackend:
        return TpuBackend(Host(self.root, [str(self.site)], environment))

    def probe(self, **environment: str):
        return self.backend(**environment).probe()


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("device", "node", "name"),
    [("0x005e", "accel{}", "TPU v4"), ("0x0063", "vfio/{}", "TPU v5e")],
)
def test_a_sound_installation_is_ready(machine, device, node, name):
    machine.pci(device, count=4)
    for number in range(4):
        machine.write("dev/" + node.format(number))
    machine.package("libtpu", "0.0.30")
    machine.package("jax", "0.11.2")
    probe = machine.probe()
    assert probe.devices == (name,) * 4
    assert (probe.score, probe.hardware_seen, probe.reasons) == (SCORE, True, ())
    assert probe.libraries == {"libtpu": "0.0.30", "jax": "0.11.2"}


@pytest.mark.parametrize(("there", "lacking"), [("jax", "libtpu"), ("libtpu", "jax")])
def test_a_missing_library_is_named(machine, there, lacking):
    machine.write("dev/accel0")
    machine.package(there, "0.10.2")
    probe = machine.probe()
    assert (probe.score, probe.devices) == (0, ("TPU",))
    assert probe.reasons == (f"{lacking} is not installed: pip install 'jax[tpu]'",)


def test_the_cpu_serves_only_where_jax_is_told_to_stay_on_it(machine):
    machine.package("jax", "0.10.2")
    assert machine.probe().score == 0
    probe = machine.probe(JAX_PLATFORMS="cpu")
    assert (probe.score, probe.devices, probe.hardware_seen) == (1, ("JAX on the CPU",), False)


def test_the_cpu_without_jax_says_what_to_install(machine):
    probe = machine.probe(JAX_PLATFORMS="cpu")
    assert probe.score == 0
    assert "pip install jax" in probe.reasons[0]
    with pytest.raises(BackendError, match="pip install jax"):
        machine.backend(JAX_PLATFORMS="cpu").open(0)


def test_there_is_one_device_whatever_the_number_of_chips(machine):
    machine.package("jax", "0.10.2")
    with pytest.raises(BackendError, match="no number 1; TPU_VISIBLE_CHIPS"):
        machine.backend(JAX_PLATFORMS="cpu").open(1)


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


@pytest.mark.parametrize(
    ("flags", "jaxlib", "changed"),
    [
        ("--xla_force_host_platform_device_count=4", "0.10.2", True),
        ("--xla_force_host_platform_device_count=4", "0.8.3", False),
        (f"--xla_force_host_platform_device_count=4 {TIMEOUT}=5", "0.10.2", False),
        ("--xla_dump_to=/tmp/here", "0.10.2", False),
    ],
)
def test_virtual_chips_may_keep_each_other_waiting(flags, jaxlib, changed):
    """XLA gives them 40 seconds, and ends the process: too little where others use the cores."""
    environment = {"XLA_FLAGS": flags}
    give_virtual_chips_time(environment, {"jaxlib": jaxlib})
    assert environment["XLA_FLAGS"] == (f"{flags} {TIMEOUT}=3600" if changed else flags)


def test_virtual_chips_are_given_time_before_jax_is_opened(monkeypatch):
    pytest.importorskip("jax", reason="JAX is not installed: pip install -r ci/jax.txt")
    from inarch_tpu import device

    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    monkeypatch.setattr(device, "open_device", lambda: os.environ["XLA_FLAGS"])
    assert f"{TIMEOUT}=3600" in TpuBackend(Host(environment={"JAX_PLATFORMS": "cpu"})).open(0)


def test_without_a_chip_the_cpu_target_of_xla_is_simulated(machine):
    pytest.importorskip("jax")
    machine.package("jax", "0.10.2")
    backend = machine.backend()
    device = backend.simulation()
    assert backend.simulation() is not None, "an engine opens one of its own"
    assert device.info.arch == "xla_cpu"
    assert device.torch_device.type == "cpu"


def test_nothing_is_simulated_without_jax_or_beside_what_can_be_opened(machine):
    assert machine.backend().simulation() is None
    machine.package("jax", "0.10.2")
    assert machine.backend(JAX_PLATFORMS="cpu").simulation() is None
