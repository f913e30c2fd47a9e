"""A torch-npu that is installed without CANN breaks `import torch`, but nothing of Inarch.

The real wheel lies on the path of a process of its own, with its metadata: to torch it is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inarch_ascend.simulation.wheel import VARIABLE, missing, wheel_version

ENGINE = """
from inarch import Engine, EngineConfig, SamplingParams
config = EngineConfig(model="inarch-tiny", backend="reference", kv_tokens=1024)
with Engine(config) as engine:
    print(len(engine.generate("Once", SamplingParams(temperature=0, max_tokens=3))[0].token_ids))
"""


OPEN = """
import os, pathlib, sys
from inarch.errors import BackendError
from inarch.hal.probing import Host
from inarch_ascend.backend import AscendBackend
os.environ.update(AscendBackend().environment())  # as the core does before torch is imported
from simulated_machine.plugin import CANN, write_machine
root = pathlib.Path(sys.argv[1])
write_machine(root)
try:
    AscendBackend(Host(root, [str(root / "site")], {"ASCEND_HOME_PATH": f"/{CANN}"})).open(0)
except BackendError as error:
    print(error)
"""
HERE = Path(__file__).parent


def python(code: str, *path: Path, argument: Path = HERE) -> subprocess.CompletedProcess[str]:
    """Run code where the wheel counts as installed. path: what else is to be found."""
    if reason := missing():
        pytest.skip(reason)
    found = [*map(str, path), *filter(None, sys.path), os.environ[VARIABLE]]
    environment = {k: v for k, v in os.environ.items() if "AUTOLOAD" not in k}
    return subprocess.run(
        [sys.executable, "-c", code, str(argument)],
        env=environment | {"PYTHONPATH": os.pathsep.join(found)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_torch_alone_would_break() -> None:
    """The trap that the others do not step into; if it is gone, so is the need of them."""
    assert "Failed to load the backend extension: torch_npu" in python("import torch").stderr


def test_an_engine_starts_as_ever() -> None:
    found = python(ENGINE)
    assert found.stdout.split()[-1:] == ["3"], found.stderr


def test_the_doctor_says_what_is_wrong(tmp_path: Path) -> None:
    metadata = tmp_path / "inarch_ascend-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: inarch-ascend\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[inarch]\nascend = inarch_ascend.plugin\n")
    found = python("from inarch.cli.main import main; main(['doctor'])", tmp_path)
    assert found.returncode == 0, found.stderr
    said = " ".join(found.stdout.split())
    assert f"torch-npu {wheel_version()} is installed without CANN" in said


def test_opening_an_npu_names_the_library_that_is_missing(tmp_path: Path) -> None:
    found = python(OPEN, HERE, argument=tmp_path)
    assert "which must match: libhccl.so: cannot open shared object file" in found.stdout, (
        found.stderr
    )
