"""Compiling for the tests of a checkout: what it leaves in the temporary folder, and what it trusts."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

import pytest

PLACE = Path(__file__).parent.parent / "compile_kernels.py"


@pytest.fixture
def compiling(tmp_path, monkeypatch):
    """The module, with a temporary folder of its own."""
    spec = importlib.util.spec_from_file_location("compile_kernels", PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return module


def test_a_compiler_that_fails_leaves_no_folder_behind(compiling, monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "CXX", "nowhere")
    with pytest.raises(RuntimeError, match="nowhere is not here"):
        compiling.compiled_for_tests()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_objects_that_another_user_has_put_there_are_not_loaded(compiling, monkeypatch, tmp_path):
    other = os.getuid() + 1
    monkeypatch.setattr(compiling.os, "getuid", lambda: other)
    (tmp_path / f"inarch_intel_cpu-{other}-{compiling.source_hash()}").mkdir()
    with pytest.raises(RuntimeError, match="belongs to another user"):
        compiling.compiled_for_tests()


def test_what_the_compiler_does_not_know_is_left_out_and_told_of(compiling, tmp_path, capsys):
    made = compiling.compile_kernels(tmp_path, {"later": compiling.Variant(("-mof-tomorrow",))})
    assert [path.name for path in made] == ["call.abi3.so"]
    said = capsys.readouterr().err
    assert "cannot compile for later, which is left out" in said
    assert "-mof-tomorrow" in said
