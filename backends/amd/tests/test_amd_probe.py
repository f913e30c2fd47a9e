"""What the probe says about machines, each built as a folder of device nodes and driver files."""

from __future__ import annotations

from pathlib import Path

import pytest

from inarch.hal.probing import Host
from inarch_amd.backend import SCORE, AmdBackend

CPU_NODE = "cpu_cores_count 64\nsimd_count 0\ngfx_target_version 0\ndrm_render_minor 0\n"
GPU_NODE = (
    "cpu_cores_count 0\nsimd_count 1216\ngfx_target_version {version}\ndrm_render_minor {minor}\n"
)


class Machine:
    def __init__(self, root: Path) -> None:
        self.root, self.site = root, root / "site"
        self.locked: set[str] = set()

    def write(self, place: str, text: str = "") -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def driver(self, *versions: int) -> None:
        nodes = [CPU_NODE]
        nodes += [GPU_NODE.format(version=v, minor=128 + i) for i, v in enumerate(versions)]
        for number, properties in enumerate(nodes):
            self.write(f"sys/class/kfd/kfd/topology/nodes/{number}/properties", properties)

    def nodes(self, *names: str) -> None:
        for name in names:
            self.write(f"dev/{name}")

    def torch(self, version: str, hip: str) -> None:
        self.write(f"site/torch-{version}.dist-info/METADATA", f"Name: torch\nVersion: {version}\n")
        build = (
            f"__version__ = '{version}'\ncuda: Optional[str] = None\nhip: Optional[str] = {hip}\n"
        )
        self.write("site/torch/version.py", build)

    def triton(self, name: str = "triton-rocm") -> None:
        self.write(f"site/{name}-3.6.0.dist-info/METADATA", f"Name: {name}\nVersion: 3.6.0\n")

    def probe(self, **environment: str):
        def access(path: Path, mode: int) -> bool:
            return path.name not in self.locked

        return AmdBackend(Host(self.root, [str(self.site)], environment, access)).probe()


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("triton", ["triton", "triton_rocm", "pytorch_triton_rocm"])
def test_a_sound_installation_can_be_used(machine, triton):
    machine.driver(90402, 90010, 110001)
    machine.nodes("kfd", "dri/renderD128", "dri/renderD129", "dri/renderD130")
    machine.torch("2.12.0+rocm7.1", "'7.1.25424'")
    machine.triton(triton)
    machine.write("opt/rocm/.info/version", "7.1.0-70\n")
    probe = machine.probe()
    assert probe.devices == ("AMD GPU gfx942", "AMD GPU gfx90a", "AMD GPU gfx1101")
    assert (probe.score, probe.hardware_seen, probe.reasons) == (SCORE, True, ())
    assert probe.libraries == {
        "ROCm": "7.1.0-70",
        "torch": "2.12.0+rocm7.1",
        "HIP of torch": "7.1.25424",
        "triton": "3.6.0",
    }


def test_a_missing_triton_is_named(machine):
    machine.driver(90402)
    machine.nodes("kfd", "dri/renderD128")
    machine.torch("2.12.0+rocm7.1", "'7.1.25424'")
    (reason,) = machine.probe().reasons
    assert "triton-rocm" in reason


@pytest.mark.parametrize(("versions", "usable"), [((110501,), False), ((110501, 90500), True)])
def test_a_gpu_that_no_kernel_is_compiled_for_is_refused_with_the_known_ones(
    machine, versions, usable
):
    machine.driver(*versions)
    machine.nodes("kfd", *(f"dri/renderD{128 + i}" for i in range(len(versions))))
    machine.torch("2.12.0+rocm7.1", "'7.1.25424'")
    machine.triton()
    probe = machine.probe()
    assert bool(probe.score) == usable
    assert usable or "gfx1151 is none of gfx90a (Instinct MI210" in probe.reasons[0]


def test_a_torch_without_rocm_is_named_with_its_version(machine):
    machine.driver(90402)
    machine.nodes("kfd", "dri/renderD128")
    machine.torch("2.13.0+cpu", "None")
    assert "torch 2.13.0+cpu has no ROCm: install" in machine.probe().reasons[0]


@pytest.mark.parametrize("locked", ["kfd", "renderD128"])
def test_missing_rights_name_the_node_and_the_groups(machine, locked):
    machine.driver(90402)
    machine.nodes("kfd", "dri/renderD128")
    machine.locked.add(locked)
    reason = machine.probe().reasons[0]
    assert locked in reason
    assert "groups render and video" in reason


def test_only_the_gpus_given_to_the_container_count(machine):
    machine.driver(90402, 90402)
    machine.nodes("kfd", "dri/renderD129")
    assert machine.probe().devices == ("AMD GPU gfx942",)


@pytest.mark.parametrize("nodes", [(), ("kfd",), ("dri/card0",)])
def test_a_container_that_was_given_no_gpu_is_told_how_to_get_it(machine, nodes):
    machine.driver(90402)
    machine.nodes(*nodes)
    probe = machine.probe()
    assert (probe.devices, probe.hardware_seen) == ((), True)
    assert "--device /dev/kfd" in probe.reasons[0]


def test_a_gpu_that_the_driver_does_not_run_is_seen_on_the_pci_bus(machine):
    machine.write("sys/bus/pci/devices/0000:05:00.0/vendor", "0x1002\n")
    machine.write("sys/bus/pci/devices/0000:05:00.0/class", "0x120000\n")
    probe = machine.probe()
    assert probe.hardware_seen
    assert "amdgpu driver" in probe.reasons[0]


def test_a_machine_with_only_cpus_says_what_was_looked_for(machine):
    machine.driver()
    machine.torch("2.13.0+cpu", "None")
    probe = machine.probe()
    assert not probe.hardware_seen
    assert "no /dev/kfd" in probe.reasons[0]


def test_gpus_that_the_user_hides_do_not_count(machine):
    machine.driver(90402)
    machine.nodes("kfd", "dri/renderD128")
    probe = machine.probe(HIP_VISIBLE_DEVICES="")
    assert not probe.hardware_seen
    assert "HIP_VISIBLE_DEVICES" in probe.reasons[0]
