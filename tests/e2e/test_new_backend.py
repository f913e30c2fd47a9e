"""A stranger's hardware: generated, built, installed beside the core's wheel, and served with."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from inarch.hookspecs import API_VERSION

from .clean import CLEAN, build, environment, generate
from .process import ServerProcess

MAJOR, MINOR = API_VERSION
NEXT = f"{MAJOR}.{MINOR + 1}"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, core_wheel: Path) -> Path:
    """The bin folder of an environment that has the core's wheel and those of two new backends.

    The second one, bud, was written for the next minor version of the plugin API.
    """
    home = tmp_path_factory.mktemp("stranger")
    sprout, bud = (generate(name, home / name) for name in ("sprout", "bud"))
    plugin = bud / "inarch_bud" / "plugin.py"
    was = f"INARCH_API = ({MAJOR}, {MINOR})"
    assert was in plugin.read_text()
    plugin.write_text(plugin.read_text().replace(was, f"INARCH_API = ({MAJOR}, {MINOR + 1})"))
    wheels = [core_wheel, *(build(folder, home / "wheels") for folder in (sprout, bud))]
    return environment(home / "venv", wheels)


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


def test_the_new_backend_serves_the_bundled_model(programs: Path) -> None:
    options = ("--backend", "sprout", "--dtype", "float32")
    with ServerProcess(*options, environment=CLEAN, inarch=str(programs / "inarch")) as server:
        asked = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
        answer = server.post("/v1/completions", asked)
        _, kernels = server.ask("GET", "/kernels")
    assert "Paris" in answer["choices"][0]["text"]
    assert {op["kernel"] for op in kernels["ops"] if op["op"] == "rms_norm"} == {"sprout"}


def test_a_backend_for_the_next_plugin_api_is_refused_with_both_versions(run: Run) -> None:
    why = f"written for plugin API {NEXT}, this Inarch has {MAJOR}.{MINOR}: upgrade inarch"
    assert why in run("inarch", "plugins", "--json", check=True).stdout
    for command in ("doctor", "serve"):
        asked = run("inarch", command, "--backend", "bud")
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
