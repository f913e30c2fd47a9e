"""What is wrong with a model folder is said in a sentence, with the file and the cure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inarch.errors import ModelError
from inarch.models.checkpoint import INDEX, SINGLE, Checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two tensors in one file."""
    (tmp_path / "config.json").write_text('{"dtype": "bfloat16"}')
    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)}, tmp_path / SINGLE)
    return tmp_path


def shard(folder: Path) -> None:
    """Move tensor b to a second file, with an index over both."""
    (folder / SINGLE).unlink()
    save_file({"a": torch.zeros(2, 3)}, folder / "one.safetensors")
    save_file({"b": torch.ones(4)}, folder / "two.safetensors")
    weight_map = {"a": "one.safetensors", "b": "two.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_tensors_are_read_by_name(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    assert checkpoint.names() == {"a", "b"}
    assert checkpoint.shape("a") == (2, 3)
    assert checkpoint.get("a").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_tensors_are_read_across_shards(folder: Path) -> None:
    shard(folder)
    checkpoint = Checkpoint(folder)
    read = [checkpoint.get(name).sum().item() for name in ("a", "b", "a")]
    assert read == [0, 4, 0]


def test_a_checkpoint_can_be_read_again_after_it_was_closed(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    checkpoint.close()
    assert checkpoint.get("b").tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"dtype": "bfloat16"}, torch.bfloat16),
        ({"torch_dtype": "float16"}, torch.float16),
        ({}, torch.float32),
    ],
)
def test_the_stored_dtype_is_the_configs_or_else_the_tensors(
    folder: Path, config: dict[str, str], dtype: torch.dtype
) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    assert Checkpoint(folder).stored_dtype == dtype


@pytest.mark.parametrize("dtype", ["int8", "Tensor", "nonsense", 3])
def test_a_dtype_that_is_none_is_refused(folder: Path, dtype: object) -> None:
    (folder / "config.json").write_text(json.dumps({"dtype": dtype}))
    with pytest.raises(ModelError, match="dtype must be one of bfloat16"):
        _ = Checkpoint(folder).stored_dtype


def test_the_generation_config_may_be_absent(folder: Path) -> None:
    assert Checkpoint(folder).generation_config == {}
    (folder / "generation_config.json").write_text('{"temperature": 0.6}')
    assert Checkpoint(folder).generation_config == {"temperature": 0.6}


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere is no folder"):
        Checkpoint(tmp_path / "nowhere")


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["{", "\xff", "[1]", "", "[" * 100_000])
def test_a_malformed_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"config\.json (is not readable as JSON|must hold)"):
        Checkpoint(folder)


@pytest.mark.parametrize("size", [0, 7, 50, -1])
def test_a_truncated_file(folder: Path, size: int) -> None:
    path = folder / SINGLE
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match=rf"{SINGLE} is truncated or damaged .*download it again"):
        Checkpoint(folder).names()


def test_a_git_lfs_pointer(folder: Path) -> None:
    (folder / SINGLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(ModelError, match=r"Git LFS pointer.*git lfs pull"):
        Checkpoint(folder).names()


def test_a_missing_shard(folder: Path) -> None:
    shard(folder)
    (folder / "two.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks 1 of the 2 weight files .*two\.safetensors"):
        Checkpoint(folder).names()


@pytest.mark.parametrize("index", ["{}", '{"weight_map": []}'])
def test_an_index_without_a_map(folder: Path, index: str) -> None:
    (folder / INDEX).write_text(index)
    with pytest.raises(ModelError, match="has no weight_map"):
        Checkpoint(folder).names()


def test_an_index_may_not_point_outside_its_folder(folder: Path) -> None:
    (folder / INDEX).write_text('{"weight_map": {"a": "../a.safetensors"}}')
    with pytest.raises(ModelError, match=r"outside its folder: \.\./a\.safetensors"):
        Checkpoint(folder).names()


def test_shards_without_their_index(folder: Path) -> None:
    shard(folder)
    (folder / INDEX).unlink()
    with pytest.raises(ModelError, match=rf"one\.safetensors, two\.safetensors but no {INDEX}"):
        Checkpoint(folder).names()


def test_a_damaged_torch_file(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"pytorch_model.bin is truncated or damaged .*download it again"
    ):
        Checkpoint(folder).names()


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / SINGLE).unlink()
    with pytest.raises(ModelError, match=r"holds no weights .*--load-format dummy"):
        Checkpoint(folder).names()


def test_an_unknown_tensor(folder: Path) -> None:
    with pytest.raises(ModelError, match="holds no tensor c"):
        Checkpoint(folder).get("c")
