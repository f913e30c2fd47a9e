"""A stranger's hardware: generated, built, installed beside the core's wheel, and served with."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from inarch.hookspecs import API_VERSION

from .process import INARCH, ServerProcess

ROOT = Path(__file__).parents[2]
MAJOR, MINOR = API_VERSION
NEXT = f"{MAJOR}.{MINOR + 1}"
OURS = {**os.environ, "OMP_NUM_THREADS": "1"}
CLEAN = {**OURS, "PYTHONPATH": ""}  # nothing of this checkout can be imported

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def build(folder: Path, wheels: Path) -> None:
    command = ["build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(folder)]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, env=OURS)


def generate(name: str, folder: Path) -> Path:
    command = [INARCH, "new-backend", name, "--path", str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=OURS)
    return folder


@pytest.fixture(scope="module")
def sprout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate("sprout", tmp_path_factory.mktemp("stranger") / "inarch-sprout")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, sprout: Path) -> Path:
    """The bin folder of an environment that has the core's wheel and those of two new backends.

    The second one, bud, was written for the next minor version of the plugin API. What else the core
    needs is found where these tests find it.
    """
    home = tmp_path_factory.mktemp("clean")
    bud = generate("bud", home / "inarch-bud")
    plugin = bud / "inarch_bud" / "plugin.py"
    was = f"INARCH_API = ({MAJOR}, {MINOR})"
    assert was in plugin.read_text()
    plugin.write_text(plugin.read_text().replace(was, f"INARCH_API = ({MAJOR}, {MINOR + 1})"))
    for folder in (ROOT, sprout, bud):
        build(folder, home / "wheels")
    venv.create(home / "venv", symlinks=True)
    (site,) = (home / "venv").glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries))
    python = str(home / "venv/bin/python")
    wheels = map(str, (home / "wheels").glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, *wheels], check=True, capture_output=True)
    return home / "venv" / "bin"


@pytest.fixture
def run(programs: Path) -> Run:
    def run(program: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [str(programs / program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=CLEAN, **options)  # type: ignore[call-overload,no-any-return]

    return run


def test_what_runs_is_what_the_wheels_brought(run: Run, programs: Path) -> None:
    code = "import inarch, inarch_sprout as new; print(inarch.__file__, new.__file__, sep='\\n')"
    for file in run("python", "-c", code, check=True).stdout.splitlines():
        assert Path(file).is_relative_to(programs.parent)


def test_the_new_backend_passes_its_own_tests(run: Run, sprout: Path) -> None:
    result = run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=sprout)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_new_backend_serves_the_bundled_model(programs: Path) -> None:
    with ServerProcess(
        "--backend", "sprout", environment=CLEAN, inarch=str(programs / "inarch")
    ) as server:
        asked = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
        answer = server.post("/v1/completions", asked)
        _, kernels = server.ask("GET", "/kernels")
    assert "Paris" in answer["choices"][0]["text"]
    assert {op["kernel"] for op in kernels["ops"] if op["op"] == "rms_norm"} == {"sprout"}


def test_a_backend_for_the_next_plugin_api_is_refused_with_both_versions(run: Run) -> None:
    why = f"written for plugin API {NEXT}, this Inarch has {MAJOR}.{MINOR}: upgrade inarch"
    listed = run("inarch", "plugins", "--json", check=True).stdout
    assert why in listed
    for command in ("doctor", "serve"):
        asked = run("inarch", command, "--backend", "bud", timeout=60)
        assert asked.returncode == 1
        assert why in " ".join((asked.stdout + asked.stderr).split())
        assert "Traceback" not in asked.stderr


def test_it_does_not_hinder_the_other_one_nor_is_it_passed_over_in_silence(run: Run) -> None:
    by_name = run("inarch", "doctor", "--backend", "sprout")
    assert "trouble: plugin bud" in by_name.stdout
    assert by_name.stdout.count("trouble: ") == 1
    assert "rms_norm: sprout" in " ".join(by_name.stdout.split())
    automatic = run("inarch", "generate", "--prompt", "hello")
    assert automatic.returncode == 1
    assert "Say --backend sprout if the CPU is meant" in automatic.stderr
