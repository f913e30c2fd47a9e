"""What every backend package has to keep, whatever its hardware."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from inarch.errors import BackendError
from inarch.hal.backend import Probe
from inarch.hookspecs import ENTRY_POINT_GROUP
from inarch.plugins import PluginState, load_plugins

HERE = Path(__file__).parent
NAMES = ("amd", "ascend", "intel_cpu", "nvidia", "tpu")
ALLOWED = ("inarch.errors", "inarch.hal", "inarch.hookspecs")
# Kernels that several backends build on: a distribution of its own.
SHARED = {"amd": "triton", "nvidia": "triton"}


def project(name: str) -> dict:
    return tomllib.loads((HERE / name / "pyproject.toml").read_text())["project"]


@pytest.fixture(params=NAMES)
def installed(request, tmp_path):
    """A backend's name, and entry points made from its pyproject.toml as an installer makes them."""
    name, described = request.param, project(request.param)
    info = tmp_path / f"{described['name'].replace('-', '_')}-{described['version']}.dist-info"
    info.mkdir()
    identity = (
        f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
    )
    (info / "METADATA").write_text(identity)
    lines = [f"{key} = {value}" for key, value in described["entry-points"]["inarch"].items()]
    (info / "entry_points.txt").write_text(f"[inarch]\n{chr(10).join(lines)}\n")
    (distribution,) = metadata.distributions(path=[str(tmp_path)])
    return name, distribution.entry_points.select(group=ENTRY_POINT_GROUP)


def test_the_package_comes_in_by_the_door_and_gives_one_backend_of_its_name(installed):
    name, entries = installed
    plugins = load_plugins(entries=entries)
    ((backend, record),) = plugins.backends()
    assert backend.name == record.name == name
    assert record.state is PluginState.READY


def test_the_probe_tells_the_truth_about_this_machine_and_open_gives_the_same_reasons(installed):
    _, entries = installed
    ((backend, _),) = load_plugins(entries=entries).backends()
    probe = backend.probe()
    assert isinstance(probe, Probe)
    if probe.score:
        return  # the hardware is here: the backend's own tests open it
    with pytest.raises(BackendError) as refused:
        backend.open(0)
    assert str(refused.value) == "; ".join(probe.reasons)


@pytest.mark.parametrize("name", NAMES)
def test_finding_the_hardware_loads_no_library(name):
    script = (
        "import sys\n"
        f"from inarch_{name}.plugin import inarch_backends\n"
        "for backend in inarch_backends(): backend.probe()\n"
        "print(*sys.modules)"
    )
    path = os.pathsep.join(filter(None, [str(HERE / name), os.environ.get("PYTHONPATH")]))
    loaded = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {"torch", "numpy", "jax", "torch_npu", "libtpu", "triton"}
    assert not heavy & set(loaded)


@pytest.mark.parametrize("name", NAMES)
def test_a_backend_imports_the_hardware_contract_and_nothing_else_of_the_core(name):
    for file in (HERE / name / f"inarch_{name}").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules.append(node.module or "")
            for module in modules:
                if module.partition(".")[0].startswith("inarch"):
                    own = (f"inarch_{name}.", f"inarch_{SHARED.get(name, name)}")
                    assert module.startswith((*ALLOWED, *own))


@pytest.mark.parametrize("name", NAMES)
def test_the_extra_of_the_main_distribution_installs_the_package(name):
    main = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    described = project(name)
    assert main["optional-dependencies"][name] == [described["name"]]
    shared = [f"inarch-{SHARED[name]}>=0.1,<0.2"] if name in SHARED else []
    assert described["dependencies"] == ["inarch>=0.1,<0.2", *shared]
    assert (HERE / name / described["readme"]).is_file()
