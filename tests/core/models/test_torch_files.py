"""Weights that torch.save wrote are read as tensors alone: nothing in them ever runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from inarch.errors import ModelError
from inarch.models.checkpoint import SINGLE, TORCH_INDEX, TORCH_SINGLE, Checkpoint

from .oracle import Saved, load

PROMPT = [5, 17, 42, 99, 3]
formats = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def write(path: Path, content: Any, zipped: bool = True) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@formats
@pytest.mark.parametrize("shards", [1, 3])
def test_the_same_model_comes_of_any_file(
    saved: Callable[[str], Saved], folder: Path, zipped: bool, shards: int
) -> None:
    """A tied one, whose file holds one storage under two names."""
    model = saved("llama-tied")
    tensors = load_file(model.folder / SINGLE)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    shutil.copy(model.folder / "config.json", folder)
    files = {f"pytorch_model-{i}.bin": sorted(tensors)[i::shards] for i in range(shards)}
    if shards == 1:
        files = {TORCH_SINGLE: list(tensors)}
    else:
        weight_map = {name: file for file, names in files.items() for name in names}
        (folder / TORCH_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    for file, names in files.items():
        write(folder / file, {name: tensors[name] for name in names}, zipped)
    expected = load(model.folder).step({0: PROMPT})[0]
    assert torch.equal(load(folder).step({0: PROMPT})[0], expected)


@formats
def test_shapes_and_dtypes_are_known_before_anything_is_read(folder: Path, zipped: bool) -> None:
    write(folder / TORCH_SINGLE, {"a": torch.ones(2, 3, dtype=torch.float16), "step": 7}, zipped)
    checkpoint = Checkpoint(folder)
    assert checkpoint.names() == {"a"}
    assert checkpoint.shape("a") == (2, 3)
    assert checkpoint.dtype("a") == checkpoint.stored_dtype == torch.float16


def test_safetensors_are_preferred(saved: Callable[[str], Saved], folder: Path) -> None:
    shutil.copytree(saved("llama").folder, folder, dirs_exist_ok=True)
    (folder / TORCH_SINGLE).write_bytes(b"nonsense")
    assert "model.norm.weight" in Checkpoint(folder).names()


class Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@formats
@pytest.mark.parametrize("environment", ["", "1"], ids=["plain", "told to trust"])
def test_a_file_that_would_run_code_is_refused_and_does_not(
    folder: Path, zipped: bool, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", environment)
    trace = folder / "trace"
    write(folder / TORCH_SINGLE, {"a": torch.ones(2), "b": Malicious(trace)}, zipped)
    message = (
        r"pytorch_model\.bin asks for \S*mkdir when opened, which could run code, so it was not"
    )
    with pytest.raises(ModelError, match=message):
        Checkpoint(folder).names()
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_archive_is_refused(folder: Path) -> None:
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(module, folder / TORCH_SINGLE)
    with pytest.raises(ModelError, match="asks for TorchScript"):
        Checkpoint(folder).names()


@formats
@pytest.mark.parametrize("size", [0, 7, 50, 200, -3])
def test_a_truncated_file(folder: Path, zipped: bool, size: int) -> None:
    path = folder / TORCH_SINGLE
    write(path, {"a": torch.ones(50)}, zipped)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"is truncated or damaged .*download it again"):
        Checkpoint(folder).get("a")


@pytest.mark.parametrize("content", [b"hello", b"\x80\x04.", b"\x80\x02}q\x00."])
def test_a_file_that_is_none_of_torchs(folder: Path, content: bytes) -> None:
    (folder / TORCH_SINGLE).write_bytes(content)
    with pytest.raises(ModelError, match="is truncated or damaged"):
        Checkpoint(folder).names()


def test_a_file_without_names(folder: Path) -> None:
    write(folder / TORCH_SINGLE, [torch.ones(2)])
    with pytest.raises(ModelError, match="holds a list, no tensors by name"):
        Checkpoint(folder).names()


def test_a_git_lfs_pointer(folder: Path) -> None:
    (folder / TORCH_SINGLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError, match=r"Git LFS pointer.*git lfs pull"):
        Checkpoint(folder).names()


def test_other_torch_files_are_not_guessed_at(folder: Path) -> None:
    write(folder / "training_args.bin", {"a": torch.ones(2)})
    with pytest.raises(ModelError, match=r"holds training_args\.bin, but neither safetensors nor"):
        Checkpoint(folder).names()
