"""`inarch new-backend`: names that can be had, folders that are left alone, and what is written."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from inarch.cli.new_backend import TEMPLATE
from inarch.hookspecs import API_VERSION
from inarch.version import __version__

from .conftest import Run


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield str(path.relative_to(folder)), path.read_text()


@pytest.mark.parametrize("name", ["my_chip", "acme2", "x", "npu_9_b"])
def test_everything_goes_by_the_new_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("new-backend", name)
    assert ended.code == 0
    folder = tmp_path / f"inarch-{name.replace('_', '-')}"
    assert f"wrote {folder.name}" in ended.out
    written = dict(texts(folder))
    assert len(written) == len(dict(texts(TEMPLATE)))
    for path, text in written.items():
        assert not re.search(r"acme(?!2)", path + text, re.IGNORECASE)
        if path.endswith(".py"):
            ast.parse(text)
    project = tomllib.loads(written["pyproject.toml"])["project"]
    assert project["name"] == folder.name
    assert project["entry-points"]["inarch"] == {name: f"inarch_{name}.plugin"}
    assert f'name = "{name}"' in written[f"inarch_{name}/backend.py"]
    assert ".gitignore" in written


def test_it_is_written_for_this_release() -> None:
    files = dict(texts(TEMPLATE))
    assert f"INARCH_API = {API_VERSION}" in files["inarch_acme/plugin.py"]
    major, minor, _ = __version__.split(".")
    wanted = f"inarch>={major}.{minor},<{major}.{int(minor) + 1}"
    assert tomllib.loads(files["pyproject.toml"])["project"]["dependencies"] == [wanted]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Chip", "all lower case"),
        ("my-chip", "all lower case"),
        ("9lives", "a letter, then"),
        ("", "no name for a backend"),
        ("../up", "no name for a backend"),
        ("chip\n", "no name for a backend"),
        ("x" * 41, "up to 40"),
        ("lambda", "no word of Python's"),
        ("chip_", "no underscore at the end"),
        ("reference", "taken by a backend of inarch itself"),
        ("formats", "taken by a plugin of inarch"),
        ("fruit", "taken by a plugin of pear"),
        ("pear_chip", "taken by a backend of pear"),
        ("nvidia", "inarch-nvidia is a package of its own"),
    ],
)
def test_a_name_that_cannot_be_had_is_refused_with_the_reason(
    run: Run, packages, tmp_path: Path, name: str, why: str
) -> None:
    packages.add_backend("pear_chip", "raise OSError", plugin="fruit", distribution="pear")
    folder = tmp_path / "new"
    ended = run("new-backend", name, "--path", str(folder))
    assert ended.code == 2
    assert why in " ".join(ended.err.split())
    assert not folder.exists()


def test_a_folder_that_is_there_is_left_as_it_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    for path in (tmp_path, tmp_path / "notes"):
        ended = run("new-backend", "chip", "--path", str(path))
        assert ended.code == 2
        assert "exists already: choose another folder by --path" in " ".join(ended.err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    (tmp_path / "empty").mkdir()
    assert run("new-backend", "chip", "--path", str(tmp_path / "empty")).code == 0


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run("new-backend", "chip", "--path", str(tmp_path / "file" / "new"))
    assert ended.code == 1
    assert ended.err.startswith("error: cannot write")
    assert ended.err.count("\n") == 1
